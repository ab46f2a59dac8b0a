//! Grafana dashboards, one module each: made of typed parts, so that a query that names no metric, or a
//! panel without a unit, does not get into the chart.

mod agents;
mod build;
mod controllers;
mod merge_queue;
mod model;
mod overview;
mod rig;

use anyhow::Result;
use model::Dashboard;

/// All dashboards.
fn all() -> Vec<Dashboard> {
    vec![
        overview::overview(),
        rig::rig(),
        merge_queue::merge_queue(),
        agents::agents(),
        controllers::controllers(),
    ]
}

/// The files of the chart: names and texts.
pub fn files() -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for dashboard in all() {
        let text = serde_json::to_string_pretty(&dashboard)?;
        files.push((format!("{}.json", dashboard.uid), format!("{text}\n")));
    }
    Ok(files)
}

/// The queries of all panels, with the panel: for the tests that run them.
#[cfg(test)]
pub fn queries() -> Vec<(String, String)> {
    let of = |dashboard: &Dashboard| {
        let title = dashboard.title.clone();
        let panels = dashboard.panels.clone().into_iter();
        panels.flat_map(move |panel| {
            let title = format!("{title}: {}", panel.title);
            panel.targets.into_iter().map(move |target| (title.clone(), target.expr))
        })
    };
    all().iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::queries;
    use super::*;

    #[test]
    fn every_panel_asks_a_question_and_links_to_what_it_is_about() {
        let mut uids = BTreeSet::new();
        for dashboard in all() {
            assert!(uids.insert(dashboard.uid), "{} is twice", dashboard.uid);
            let (mut ids, mut right, mut titles) = (BTreeSet::new(), (0, 0), BTreeSet::new());
            for panel in &dashboard.panels {
                let about = format!("{}: {}", dashboard.title, panel.title);
                assert!(panel.title.ends_with('?') && titles.insert(panel.title), "{about}");
                assert!(
                    panel.description.len() > 20 && panel.description.ends_with('.'),
                    "{about}"
                );
                assert!(!panel.field_config.defaults.unit.is_empty(), "{about}");
                assert!(ids.insert(panel.id) && !panel.targets.is_empty(), "{about}");
                let links = panel.field_config.defaults.links.len() + panel.links.len();
                assert!(links > 0, "{about}: it leads nowhere");
                let place = panel.grid_pos;
                assert!(place.x + place.w <= 24 && (place.y, place.x) >= right, "{about}");
                right = (place.y, place.x + place.w);
            }
        }
    }

    #[test]
    fn queries_name_metrics_and_variables_that_exist() {
        for (about, query) in super::queries() {
            queries::check(&query, &about);
            let known = ["$rig", "$__rate_interval", "$__range", "$controller"];
            for variable in query.split('$').skip(1) {
                let is_known = |k: &&&str| format!("${variable}").starts_with(**k);
                assert!(known.iter().any(|k| is_known(&k)), "{about}: ${variable}");
            }
        }
    }

    #[test]
    fn buckets_are_shown_by_their_trace() {
        for dashboard in all() {
            for panel in dashboard.panels {
                let buckets = panel.targets.iter().any(|t| t.expr.contains("_bucket"));
                let exemplars = panel.targets.iter().any(|t| t.exemplar);
                assert!(!exemplars || buckets, "{}: exemplars are of buckets", panel.title);
            }
        }
    }
}
