//! The alerts.

use gastown_api::rbac::Controller;

use super::model::{Alert, Severity};

/// All alerts.
pub fn alerts() -> Vec<Alert> {
    vec![
        nothing_lands(),
        target_broken(),
        gate_infrastructure_broken(),
        remote_unusable(),
        claims_stuck(),
        work_unsaved(),
        work_lost(),
        untested_landing(),
        escalation_unacknowledged(),
        shard_without_holder(),
        certificate_near_its_end(),
        bead_store_not_synced(),
        cost_above_budget(),
    ]
}

fn nothing_lands() -> Alert {
    Alert {
        name: "NothingLands",
        query: "sum by (rig) (gastown_refinery_queue_length) > 0 and \
                sum by (rig) (increase(gastown_refinery_merge_total{result=\"success\"}[2h])) == 0 and \
                max by (rig) (gastown_refinery_queue_oldest_seconds) > 7200"
            .to_owned(),
        lasts: "15m",
        severity: Severity::Critical,
        summary: "nothing has landed in rig {{ $labels.rig }} for two hours though requests wait",
        meaning: "Requests of a rig wait, the oldest for more than two hours, and none has landed within two hours.",
        look: &[
            "kubectl get refineries -A",
            "kubectl get mergerequests -A",
            "kubectl describe refinery -n NAMESPACE NAME",
        ],
        steps: &[
            "The condition `Ready` of the Refinery has the reason: [reasons](../reasons.md) has what to do about each.",
            "When the gate takes longer than two hours, that is how long a landing takes: make it faster, or raise the limit of this alert.",
            "When every request is sent back, read `status.attempts` of one: the evidence of its gate is there.",
            "Look at the trace of one request: its phases show where the time goes.",
        ],
    }
}

fn target_broken() -> Alert {
    Alert {
        name: "TargetBroken",
        query: "max by (rig) (gastown_refinery_blocked{reason=\"TargetBroken\"}) > 0".to_owned(),
        lasts: "10m",
        severity: Severity::Critical,
        summary: "the target branch of rig {{ $labels.rig }} fails its own gate",
        meaning: "The gate fails on the target branch alone, so requests wait until it passes there again.",
        look: &[
            "kubectl describe refinery -n NAMESPACE NAME",
            "kubectl get gateruns -n NAMESPACE --sort-by=.metadata.creationTimestamp",
            "kubectl get gaterun -n NAMESPACE NAME -o jsonpath={.status.evidence}",
        ],
        steps: &[
            "Read the evidence of the run whose purpose is the target alone: it has the end of the gate's output.",
            "Fix the branch: push a fix, or submit one as a request, which lands when it passes its gate.",
            "When the gate passes at times, it is not reliable: make it so, since each landing needs it.",
        ],
    }
}

fn gate_infrastructure_broken() -> Alert {
    Alert {
        name: "GateInfrastructureBroken",
        query: "max by (rig) (gastown_refinery_blocked{reason=\"GateBroken\"}) > 0 or \
                sum by (rig) (increase(gastown_refinery_gate_faults_total[1h])) > 5"
            .to_owned(),
        lasts: "5m",
        severity: Severity::Critical,
        summary: "gates of rig {{ $labels.rig }} do not run",
        meaning: "Infrastructure breaks the gate runs of a rig: their pods do not start, or end without a verdict.",
        look: &[
            "kubectl get gateruns -n NAMESPACE",
            "kubectl get jobs,pods -n NAMESPACE",
            "kubectl get events -n NAMESPACE --sort-by=.lastTimestamp",
        ],
        steps: &[
            "The condition `Complete` of a broken run has the message of what broke it.",
            "An image that cannot be pulled, a quota, or no node with enough room: correct it, or `spec.gateTemplate` of the Refinery.",
            "Runs are tried again every ten minutes; add 1 to `spec.retry` of a request to try at once.",
        ],
    }
}

fn remote_unusable() -> Alert {
    Alert {
        name: "RemoteUnusable",
        query: "max by (rig, reason) (gastown_refinery_blocked{reason!~\"TargetBroken|GateBroken\"}) > 0"
            .to_owned(),
        lasts: "15m",
        severity: Severity::Critical,
        summary: "refinery-ctl cannot work for rig {{ $labels.rig }}: {{ $labels.reason }}",
        meaning: "The git remote of a rig cannot be used, or gates cannot be created, so nothing lands.",
        look: &[
            "kubectl describe refinery -n NAMESPACE NAME",
            "kubectl logs -n gastown-system deploy/refinery-ctl --since=30m",
        ],
        steps: &[
            "[Reasons](../reasons.md) has what to do about the reason in the alert.",
            "Credentials that were refused: correct the Secret; the Refinery reads it again.",
            "A remote that does not answer: nothing is to be done here; work goes on when it does.",
        ],
    }
}

fn claims_stuck() -> Alert {
    Alert {
        name: "ClaimsStuck",
        query: "max by (rig, reason) (gastown_polecat_waiting_oldest_seconds{reason=~\"Claiming|NotClaimed|ClaimUnreadable\"}) > 900 or \
                max by (rig, reason) (gastown_polecat_waiting_oldest_seconds{reason=~\"AlreadyClaimed|WorkToLand\"}) > 86400"
            .to_owned(),
        lasts: "5m",
        severity: Severity::Warning,
        summary: "polecats of rig {{ $labels.rig }} do not get their claim: {{ $labels.reason }}",
        meaning: "A polecat has not had the claim on its bead for longer than it should take: 15 minutes, or a day where another one has it.",
        look: &[
            "kubectl get polecats -A",
            "kubectl get leases -n gastown-system -l gastown.io/claim=true",
            "kubectl describe polecat -n NAMESPACE NAME",
        ],
        steps: &[
            "The message of the condition `Claimed` names the holder.",
            "When the holder is another polecat that has ended its work, see why that does not land.",
            "When two polecats were created for one bead, delete the one that waits.",
        ],
    }
}

fn work_unsaved() -> Alert {
    Alert {
        name: "WorkUnsaved",
        query: "max by (rig) (gastown_polecat_unsaved_oldest_seconds) > 900".to_owned(),
        lasts: "5m",
        severity: Severity::Critical,
        summary: "work of a polecat of rig {{ $labels.rig }} cannot be brought to the remote",
        meaning: "The pod of a polecat has had work for 15 minutes or longer that the remote does not take; were the pod to end by force, the work would be lost.",
        look: &[
            "kubectl get polecats -A -o wide",
            "kubectl describe polecat -n NAMESPACE NAME",
            "kubectl logs -n NAMESPACE POD -c git-sync",
        ],
        steps: &[
            "Do not delete the pod by force: it stays until its work is saved.",
            "The condition `Saved` has why: credentials, a rule of the remote, or a remote that does not answer.",
            "Correct that; git-sync tries again by itself.",
        ],
    }
}

fn work_lost() -> Alert {
    Alert {
        name: "WorkLost",
        query: "sum by (rig) (increase(gastown_polecat_lost_total[1h])) > 0".to_owned(),
        lasts: "0m",
        severity: Severity::Warning,
        summary: "a polecat of rig {{ $labels.rig }} has lost work with its pod",
        meaning: "A pod ended before everything in it was on the remote: a node was lost, or the pod was deleted by force.",
        look: &[
            "kubectl get polecats -A",
            "kubectl describe polecat -n NAMESPACE NAME",
            "kubectl get nodes",
        ],
        steps: &[
            "The condition `Degraded` with reason `WorkLost` has what is gone; the next attempt goes on from what the remote has.",
            "When nodes are lost often, see [security](../security.md) and your nodes: agents should not share nodes that run out of memory.",
        ],
    }
}

fn untested_landing() -> Alert {
    Alert {
        name: "UntestedLanding",
        query: "sum by (rig) (gastown_refinery_untested_landings_total) > 0".to_owned(),
        lasts: "0m",
        severity: Severity::Critical,
        summary: "another commit than the tested one has landed in rig {{ $labels.rig }}",
        meaning: "A request landed with another commit than the one that passed its gate, which must not happen.",
        look: &[
            "kubectl get mergerequests -A -o custom-columns=NAME:.metadata.name,TESTED:.status.testedCommit,LANDED:.status.landedCommit",
            "kubectl logs -n gastown-system deploy/refinery-ctl --since=24h",
        ],
        steps: &[
            "Suspend the rig, so that nothing else lands: `spec.suspend` of the Rig.",
            "Compare the two commits; test what the target branch has now.",
            "This is a defect of the operator: report it with the log and the two commits.",
        ],
    }
}

fn escalation_unacknowledged() -> Alert {
    Alert {
        name: "EscalationUnacknowledged",
        query: "max by (rig, severity) (gastown_escalations_oldest_seconds{phase=\"Open\",severity=~\"high|critical\"}) > 3600"
            .to_owned(),
        lasts: "5m",
        severity: Severity::Warning,
        summary: "nobody has looked at an escalation of rig {{ $labels.rig }} (severity {{ $labels.severity }}) for an hour",
        meaning: "An Escalation of severity high or critical is open for more than an hour, and nobody has acknowledged it.",
        look: &[
            "kubectl get escalations -A",
            "kubectl describe escalation -n NAMESPACE NAME",
            "kubectl patch escalation -n NAMESPACE NAME --type=merge -p '{\"spec\":{\"acknowledged\":{\"by\":\"ME\"}}}'",
        ],
        steps: &[
            "Read its summary and details, and acknowledge it while you look.",
            "When `status.deliveries` shows that it did not reach anybody, correct the routes of the Witness.",
            "It closes by itself when the problem goes; else close it with `spec.closed`.",
        ],
    }
}

fn shard_without_holder() -> Alert {
    let absent = Controller::ALL.into_iter().map(|controller| {
        format!(" or absent(gastown_shards_held{{job=\"{}\"}})", controller.name())
    });
    Alert {
        name: "ShardWithoutHolder",
        query: format!("sum by (job) (gastown_shards_held) < 16{}", absent.collect::<String>()),
        lasts: "5m",
        severity: Severity::Critical,
        summary: "{{ $labels.job }} does not work for all rigs",
        meaning: "The replicas of a controller work on fewer than all 16 shards, or Prometheus sees no replica: nothing happens for some rigs.",
        look: &[
            "kubectl get pods -n gastown-system",
            "kubectl get leases -n gastown-system",
            "kubectl logs -n gastown-system deploy/CONTROLLER --since=15m",
        ],
        steps: &[
            "Without a pod that is ready: `kubectl describe` shows why it does not start; `/readyz` has what it waits for.",
            "With pods that are ready: their log has why they do not take part, such as an API server that does not answer.",
            "When the pods are well, Prometheus does not reach them: see `networkPolicies.controllers.metricsFrom` of the chart.",
        ],
    }
}

fn certificate_near_its_end() -> Alert {
    Alert {
        name: "CertificateNearItsEnd",
        query: "min by (job) (gastown_tls_certificate_expiry_timestamp_seconds) - time() < 1209600"
            .to_owned(),
        lasts: "1h",
        severity: Severity::Warning,
        summary: "the certificate of {{ $labels.job }} ends in less than two weeks",
        meaning: "The certificate of the gRPC and git servers ends within two weeks; agents and controllers refuse it then.",
        look: &[
            "kubectl get secret -n gastown-system gastown-tls -o jsonpath={.data.tls\\.crt}",
            "kubectl get certificates -n gastown-system",
        ],
        steps: &[
            "With cert-manager: `kubectl describe certificate` has why it was not renewed.",
            "With a Secret of your own: put a new certificate in it; the controllers read it within a minute.",
            "With the chart's own: delete the Secret and run `helm upgrade`; pods of agents trust the old authority until they end.",
        ],
    }
}

fn bead_store_not_synced() -> Alert {
    Alert {
        name: "BeadStoreNotSynced",
        query: "max by (rig) (gastown_beadstore_synced) == 0 or \
                max by (rig) (gastown_beadstore_sync_age_seconds) > 7200"
            .to_owned(),
        lasts: "15m",
        severity: Severity::Warning,
        summary: "the bead store of rig {{ $labels.rig }} is not read",
        meaning: "The last reading of a bead store failed, or was more than two hours ago: claims and closes do not get into it, and convoys do not see new beads.",
        look: &[
            "kubectl get beadstores -A",
            "kubectl describe beadstore -n NAMESPACE NAME",
            "kubectl logs -n gastown-system deploy/beadstore-ctl --since=30m",
        ],
        steps: &[
            "The condition `Synced` has the reason: [reasons](../reasons.md) has what to do about each.",
            "Nothing is lost meanwhile: claims are Leases, and landings are in git.",
        ],
    }
}

fn cost_above_budget() -> Alert {
    Alert {
        name: "CostAboveBudget",
        query: "sum(increase(gastown_polecat_cost_usd_total[1d])) > on() max(gastown:daily_cost_limit:usd) or \
                sum by (rig) (gastown_polecat_waiting{reason=\"BudgetExceeded\"}) > 0"
            .to_owned(),
        lasts: "5m",
        severity: Severity::Warning,
        summary: "agents cost more than they may",
        meaning: "Agents cost more within a day than `monitoring.rules.dailyCostUSD` of the chart, or a polecat has reached its own `spec.budget`.",
        look: &[
            "kubectl get polecats -A -o custom-columns=NAME:.metadata.name,RIG:.spec.rig,USD:.status.usage.costUSD,PHASE:.status.phase",
            "kubectl describe polecat -n NAMESPACE NAME",
        ],
        steps: &[
            "See on the dashboard Agents which rig and which model cost how much.",
            "A polecat with reason `BudgetExceeded` has saved its work: raise its budget, or cut its task.",
            "To let less work at a time, lower `spec.settings.maxPolecats` of the Rig.",
        ],
    }
}
