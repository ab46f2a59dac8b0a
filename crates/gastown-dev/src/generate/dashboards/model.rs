//! The parts of a Grafana dashboard that ours use, as Grafana's JSON has them (schema version 39).

use serde::Serialize;
use serde_json::{Value, json};

/// The uid under which a panel names the chosen Prometheus.
pub const PROMETHEUS: &str = "${prometheus}";

/// The source of data of a panel or variable.
#[derive(Clone, Debug, Serialize)]
pub struct DataSource {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub uid: &'static str,
}

/// The Prometheus that the reader has chosen.
pub fn prometheus() -> DataSource {
    DataSource { kind: "prometheus", uid: PROMETHEUS }
}

/// A dashboard.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    pub uid: &'static str,
    pub title: String,
    pub description: &'static str,
    pub tags: Vec<&'static str>,
    pub editable: bool,
    pub graph_tooltip: u8,
    pub schema_version: u16,
    pub version: u32,
    pub refresh: &'static str,
    pub time: Range,
    pub timezone: &'static str,
    pub links: Vec<Link>,
    pub templating: Templating,
    pub annotations: Annotations,
    pub panels: Vec<Panel>,
}

/// What is shown at first.
#[derive(Clone, Debug, Serialize)]
pub struct Range {
    pub from: &'static str,
    pub to: &'static str,
}

/// A link of a dashboard, a panel or a value.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    pub title: &'static str,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub url: String,
    pub tags: Vec<&'static str>,
    pub as_dropdown: bool,
    pub include_vars: bool,
    pub keep_time: bool,
    pub target_blank: bool,
    pub icon: &'static str,
    pub tooltip: &'static str,
}

impl Link {
    /// A link to an address.
    pub fn to(title: &'static str, url: String, target_blank: bool) -> Self {
        Self {
            title,
            kind: "link",
            url,
            tags: Vec::new(),
            as_dropdown: false,
            include_vars: false,
            keep_time: false,
            target_blank,
            icon: "external link",
            tooltip: "",
        }
    }
}

/// The variables.
#[derive(Clone, Debug, Serialize)]
pub struct Templating {
    pub list: Vec<Variable>,
}

/// No annotations.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Annotations {
    pub list: Vec<Value>,
}

/// What the reader chooses.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    pub name: &'static str,
    pub label: &'static str,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub query: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datasource: Option<DataSource>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub regex: String,
    pub refresh: u8,
    pub multi: bool,
    pub include_all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_value: Option<&'static str>,
    pub hide: u8,
}

/// Where a panel is: the width of the page is 24.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Place {
    pub h: u32,
    pub w: u32,
    pub x: u32,
    pub y: u32,
}

/// A panel.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    pub id: u32,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub datasource: DataSource,
    pub grid_pos: Place,
    pub targets: Vec<Target>,
    pub field_config: FieldConfig,
    pub options: Value,
    pub links: Vec<Link>,
}

/// A query.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub ref_id: String,
    pub datasource: DataSource,
    pub expr: String,
    pub legend_format: &'static str,
    pub range: bool,
    pub instant: bool,
    pub exemplar: bool,
    pub editor_mode: &'static str,
}

/// How values are shown.
#[derive(Clone, Debug, Serialize)]
pub struct FieldConfig {
    pub defaults: Defaults,
    pub overrides: Vec<Value>,
}

/// The same for all series.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    pub unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decimals: Option<u8>,
    pub no_value: &'static str,
    pub links: Vec<Link>,
    pub thresholds: Thresholds,
    pub custom: Value,
}

/// Colours by value.
#[derive(Clone, Debug, Serialize)]
pub struct Thresholds {
    pub mode: &'static str,
    pub steps: Vec<Step>,
}

/// A colour from a value on.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub color: &'static str,
    pub value: Option<f64>,
}

impl Defaults {
    /// A unit of Grafana's, such as `s`, `short`, `currencyUSD`, `bytes`.
    pub fn of(unit: &'static str) -> Self {
        Self {
            unit,
            min: Some(0.0),
            decimals: None,
            no_value: "0",
            links: Vec::new(),
            thresholds: Thresholds {
                mode: "absolute",
                steps: vec![Step { color: "green", value: None }],
            },
            custom: json!({}),
        }
    }
}
