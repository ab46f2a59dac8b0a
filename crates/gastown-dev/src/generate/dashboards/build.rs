//! Building dashboards: rows of panels, and what all panels have.

use serde_json::{Value, json};

use super::super::documents::DOCUMENTS;
use super::model::{
    Annotations, Dashboard, Defaults, FieldConfig, Link, Panel, Place, Range, Step, Target,
    Templating, Variable, prometheus,
};

/// The height of a panel with a graph, and of one with a number.
const GRAPH: u32 = 8;
const NUMBER: u32 = 4;

/// A query and how its series are called.
pub type Query = (&'static str, &'static str);

/// A panel before it has its place.
pub struct Draft {
    panel: Panel,
    height: u32,
}

fn draft(
    kind: &'static str,
    unit: &'static str,
    title: &'static str,
    description: &'static str,
    queries: &[Query],
    height: u32,
) -> Draft {
    let instant = kind != "timeseries";
    let target = |(n, (expr, legend)): (usize, &Query)| Target {
        ref_id: char::from(b'A' + n as u8).to_string(),
        datasource: prometheus(),
        expr: (*expr).to_owned(),
        legend_format: legend,
        range: !instant,
        instant,
        exemplar: false,
        editor_mode: "code",
    };
    let panel = Panel {
        id: 0,
        kind,
        title,
        description,
        datasource: prometheus(),
        grid_pos: Place::default(),
        targets: queries.iter().enumerate().map(target).collect(),
        field_config: FieldConfig { defaults: Defaults::of(unit), overrides: Vec::new() },
        options: json!({}),
        links: Vec::new(),
    };
    Draft { panel, height }
}

/// A graph over time.
pub fn graph(
    unit: &'static str,
    title: &'static str,
    description: &'static str,
    queries: &[Query],
) -> Draft {
    let mut draft = draft("timeseries", unit, title, description, queries, GRAPH);
    draft.panel.field_config.defaults.custom = json!({"drawStyle": "line", "fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": true});
    draft.panel.options = json!({
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"], "showLegend": true},
        "tooltip": {"mode": "multi", "sort": "desc"},
    });
    draft
}

/// One number of now.
pub fn number(
    unit: &'static str,
    title: &'static str,
    description: &'static str,
    query: &'static str,
) -> Draft {
    let mut draft = draft("stat", unit, title, description, &[(query, "")], NUMBER);
    draft.panel.options = json!({
        "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "textMode": "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
    });
    draft
}

/// A table of the labels and values of now.
pub fn table(
    unit: &'static str,
    title: &'static str,
    description: &'static str,
    query: &'static str,
) -> Draft {
    let mut draft = draft("table", unit, title, description, &[(query, "")], GRAPH);
    for target in &mut draft.panel.targets {
        target.legend_format = "__auto";
    }
    draft.panel.options = json!({"showHeader": true, "cellHeight": "sm", "footer": {"show": false, "reducer": ["sum"], "countRows": false}});
    draft
}

impl Draft {
    /// Stacks the series.
    pub fn stacked(mut self) -> Self {
        let custom = &mut self.panel.field_config.defaults.custom;
        custom["stacking"] = json!({"mode": "normal", "group": "A"});
        custom["fillOpacity"] = json!(40);
        self
    }

    /// Is red from this value on.
    pub fn red_from(mut self, value: f64) -> Self {
        let steps = &mut self.panel.field_config.defaults.thresholds.steps;
        steps.push(Step { color: "red", value: Some(value) });
        self
    }

    /// Is red below this value.
    pub fn red_below(mut self, value: f64) -> Self {
        let steps = &mut self.panel.field_config.defaults.thresholds.steps;
        *steps =
            vec![Step { color: "red", value: None }, Step { color: "green", value: Some(value) }];
        self
    }

    /// Links its exemplars, and its series, to traces.
    pub fn traces(mut self) -> Self {
        for target in &mut self.panel.targets {
            target.exemplar = target.expr.contains("_bucket");
        }
        self.search("{ name = \"polecat\" && resource.service.namespace = \"gastown\" }")
    }

    /// Links to the search for traces, in TraceQL.
    pub fn search(mut self, query: &str) -> Self {
        let link = Link::to("Traces of this time", explore(query), true);
        self.panel.field_config.defaults.links.push(link);
        let by_id = Link::to("The trace of this point", explore("${__data.fields.trace_id}"), true);
        // Of a series that has no trace the link has nothing to show.
        if self.panel.targets.iter().any(|target| target.exemplar) {
            let of_exemplars = json!({
                "matcher": {"id": "byName", "options": "trace_id"},
                "properties": [{"id": "links", "value": [by_id]}],
            });
            self.panel.field_config.overrides.push(of_exemplars);
        }
        self
    }

    /// Links to another dashboard, for the rig of a series.
    pub fn leads_to(mut self, title: &'static str, uid: &str) -> Self {
        let by_rig = self.panel.targets.iter().all(|target| target.expr.contains("by (rig"));
        let rig = if by_rig { "&var-rig=${__field.labels.rig}" } else { "" };
        let url = format!(
            "/d/{uid}?${{__url_time_range}}{rig}&${{prometheus:queryparam}}&${{tracing:queryparam}}"
        );
        self.panel.field_config.defaults.links.push(Link::to(title, url, false));
        self
    }

    /// Links to a page of the documentation.
    pub fn explained(mut self, title: &'static str, page: &str) -> Self {
        let url = format!("{DOCUMENTS}/{page}");
        self.panel.links.push(Link::to(title, url, true));
        self
    }
}

/// Explore's address with a query of the tracing data source.
fn explore(query: &str) -> String {
    let pane = json!({
        "trace": {
            "datasource": "${tracing}",
            "queries": [{"refId": "A", "queryType": "traceql", "query": query}],
            "range": {"from": "${__from}", "to": "${__to}"},
        },
    });
    format!("/explore?schemaVersion=1&panes={}", encoded(&pane.to_string()))
}

/// A text in an address; Grafana's variables stay.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let variable = rest.strip_prefix("${").and_then(|after| after.find('}')).map(|at| at + 3);
        let (taken, plain) = match variable {
            Some(length) => (length, true),
            None => (first.len_utf8(), first.is_ascii_alphanumeric() || "-_.~".contains(first)),
        };
        let (now, after) = rest.split_at(taken);
        if plain {
            encoded.push_str(now);
        } else {
            for byte in now.bytes() {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        rest = after;
    }
    encoded
}

/// The variables: where the data is, and which rigs.
pub fn variables(of_rigs: bool) -> Vec<Variable> {
    let source = |name, label, kind: &str, regex: &str| Variable {
        name,
        label,
        kind: "datasource",
        query: Value::from(kind),
        datasource: None,
        regex: regex.to_owned(),
        refresh: 1,
        multi: false,
        include_all: false,
        all_value: None,
        hide: 0,
    };
    let mut all = vec![
        source("prometheus", "Prometheus", "prometheus", ""),
        // Grafana asks for one type; whoever has Jaeger changes it in one place.
        source("tracing", "Traces", "tempo", ""),
    ];
    if of_rigs {
        all.push(Variable {
            name: "rig",
            label: "Rig",
            kind: "query",
            query: json!({"query": "label_values(gastown_polecat_slots, rig)", "refId": "rig"}),
            datasource: Some(prometheus()),
            regex: String::new(),
            refresh: 2,
            multi: true,
            include_all: true,
            all_value: Some(".*"),
            hide: 0,
        });
    }
    all
}

/// A dashboard of these rows; the panels of a row are equally wide.
pub fn dashboard(
    uid: &'static str,
    title: &str,
    description: &'static str,
    of_rigs: bool,
    rows: Vec<Vec<Draft>>,
) -> Dashboard {
    let (mut panels, mut y) = (Vec::new(), 0);
    for row in rows {
        let width = 24 / u32::try_from(row.len()).unwrap_or(1).max(1);
        let height = row.iter().map(|draft| draft.height).max().unwrap_or_default();
        for (n, Draft { panel, .. }) in row.into_iter().enumerate() {
            let x = width * u32::try_from(n).unwrap_or_default();
            let id = u32::try_from(panels.len()).unwrap_or_default() + 1;
            panels.push(Panel { id, grid_pos: Place { h: height, w: width, x, y }, ..panel });
        }
        y += height;
    }
    let others = Link {
        kind: "dashboards",
        tags: vec!["gastown"],
        as_dropdown: true,
        include_vars: true,
        keep_time: true,
        tooltip: "The other dashboards",
        ..Link::to("Gas Town", String::new(), false)
    };
    Dashboard {
        uid,
        title: format!("Gas Town / {title}"),
        description,
        tags: vec!["gastown"],
        editable: false,
        graph_tooltip: 1,
        schema_version: 39,
        version: 1,
        refresh: "30s",
        time: Range { from: "now-24h", to: "now" },
        timezone: "browser",
        links: vec![others],
        templating: Templating { list: variables(of_rigs) },
        annotations: Annotations::default(),
        panels,
    }
}
