//! Rules and dashboards: read by Prometheus's own program, tested with it, and in the chart.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::{NAMESPACE, object, of_kind, render};

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/gastown-operator/files")
}

/// Runs promtool in a folder; what it printed.
fn promtool(folder: &Path, arguments: &[&str]) -> String {
    let program = gastown_toolchain::prometheus().unwrap().join("promtool");
    let out = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(out.status.success(), "promtool {}:\n{text}", arguments.join(" "));
    text
}

#[test]
fn alerts_fire_when_they_are_to_and_not_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(files().join("rules.yaml"), folder.path().join("rules.yaml")).unwrap();
    let tests = include_str!("rules.test.yaml");
    std::fs::write(folder.path().join("rules.test.yaml"), tests).unwrap();
    promtool(folder.path(), &["check", "rules", "rules.yaml"]);
    promtool(folder.path(), &["test", "rules", "rules.test.yaml"]);
    // Each alert is in a test.
    let rules: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(files().join("rules.yaml")).unwrap())
            .unwrap();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(tests.contains(name), "no test fires {name}");
    }
}

/// The dashboards of the chart, by file.
fn dashboards() -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = std::fs::read_dir(files().join("dashboards"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                serde_json::from_str(&text).unwrap(),
            )
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn prometheus_reads_every_query_of_every_panel() {
    let (mut rules, mut count) = (Vec::new(), 0);
    for (file, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                // As Grafana fills them in.
                let query = target["expr"].as_str().unwrap();
                let query = query.replace("$__rate_interval", "1m").replace("$rig", ".*");
                assert!(!query.contains('$'), "{file}: {query}");
                rules.push(json!({"record": format!("query_{count}"), "expr": query}));
                count += 1;
            }
        }
    }
    assert!(count > 50, "{count} queries");
    let folder = tempfile::tempdir().unwrap();
    let all = json!({"groups": [{"name": "queries", "rules": rules}]});
    std::fs::write(folder.path().join("queries.yaml"), all.to_string()).unwrap();
    let text = promtool(folder.path(), &["check", "rules", "queries.yaml"]);
    assert!(text.contains(&format!("{count} rules found")), "{text}");
}

/// Of JSON, which has the values of enumerations and not their names. Queries are of the plugin for
/// Prometheus.
const CHECK: &str = r#"
import type { Dashboard, Panel } from "@grafana/grafana-foundation-sdk/dashboard";
import type { Dataquery } from "@grafana/grafana-foundation-sdk/prometheus";
type Json<T> = T extends string ? `${T}`
    : T extends (infer E)[] ? Json<E>[]
    : T extends object ? { [K in keyof T]: Json<T[K]> }
    : T;
type Query = Omit<Json<Dataquery>, "_implementsDataqueryVariant">;
type OurPanel = Omit<Json<Panel>, "targets"> & { targets: Query[] };
type Ours = Omit<Json<Dashboard>, "panels"> & { panels: OurPanel[] };
"#;

/// What Grafana's own types refuse.
fn compile(dashboards: &[String]) -> Result<(), String> {
    let types = gastown_toolchain::grafana_types().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(types.join("node_modules"), folder.path().join("node_modules"))
        .unwrap();
    let all = dashboards.iter().enumerate();
    let all = all.map(|(n, text)| format!("export const of{n}: Ours = {text};\n"));
    let text = std::iter::once(CHECK.to_owned()).chain(all).collect::<String>();
    std::fs::write(folder.path().join("check.ts"), text).unwrap();
    let out = Command::new("node")
        .arg(types.join("node_modules/typescript/bin/tsc"))
        .args(["--noEmit", "--strict", "--skipLibCheck", "--preserveSymlinks"])
        .args(["--module", "node16", "--moduleResolution", "node16", "check.ts"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stdout).into()) }
}

#[test]
fn dashboards_are_what_grafana_s_types_allow() {
    let all: Vec<String> =
        dashboards().into_iter().map(|(_, dashboard)| dashboard.to_string()).collect();
    compile(&all).unwrap();
    for (from, to) in [
        ("\"mode\":\"absolute\"", "\"mode\":\"relative\""),
        ("\"legendFormat\"", "\"legend\""),
        ("\"gridPos\":{", "\"gridPos\":{\"z\":1,"),
    ] {
        let wrong = all[0].replacen(from, to, 1);
        assert_ne!(wrong, all[0], "{from}");
        assert!(compile(&[wrong]).is_err(), "{to} passes");
    }
}

#[tokio::test]
async fn dashboards_and_rules_are_in_the_chart_when_they_are_asked_for() {
    let none = render(&[]).await;
    assert!(of_kind(&none, "PrometheusRule").is_empty());
    let set = [
        "monitoring.dashboards.enabled=true",
        "monitoring.dashboards.namespace=monitoring",
        "monitoring.rules.enabled=true",
        "monitoring.rules.labels.release=prometheus",
        "monitoring.rules.dailyCostUSD=12.5",
    ];
    let objects = render(&set).await;
    for (file, dashboard) in dashboards() {
        let name = format!("{}-dashboard", file.trim_end_matches(".json"));
        let map = object(&objects, "ConfigMap", &name);
        assert_eq!(map["metadata"]["namespace"], "monitoring");
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        let read: Value = serde_json::from_str(map["data"][&file].as_str().unwrap()).unwrap();
        assert_eq!(read, dashboard, "{file}");
    }
    let rule = object(&objects, "PrometheusRule", "gastown-operator");
    assert_eq!(rule["metadata"]["namespace"], NAMESPACE);
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    let groups = rule["spec"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0]["rules"][0]["expr"], "vector(12.5)");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), rule["spec"].to_string()).unwrap();
    promtool(folder.path(), &["check", "rules", "rules.yaml"]);
    let unlimited = render(&["monitoring.rules.enabled=true"]).await;
    let rule = object(&unlimited, "PrometheusRule", "gastown-operator");
    assert_eq!(rule["spec"]["groups"].as_array().unwrap().len(), 1);
}
