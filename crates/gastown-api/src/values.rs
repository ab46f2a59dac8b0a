//! The text of each enum value, as it is written in an object.

/// Gives an enum without fields `ALL`, `as_str` and [`Display`](std::fmt::Display), which are the
/// text that the API server stores. A test below compares them with serde's.
macro_rules! values {
    ($($name:ty { $($variant:ident = $text:literal),+ $(,)? })+) => {$(
        impl $name {
            /// All values, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as it is written in an object.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    )+
        #[cfg(test)]
        fn texts() -> Vec<(&'static str, &'static str, serde_json::Value)> {
            let mut all = Vec::new();
            $(for value in <$name>::ALL {
                all.push((stringify!($name), value.as_str(), serde_json::json!(value)));
            })+
            all
        }
    };
}

values! {
    crate::AgentKind { ClaudeCode = "claude-code", Generic = "generic" }
    crate::DesiredState { Idle = "Idle", Working = "Working", Terminated = "Terminated" }
    crate::ExecutionMode { Kubernetes = "kubernetes" }
    crate::Provider { Litellm = "litellm", Anthropic = "anthropic", Openai = "openai", Ollama = "ollama" }
    crate::StrictHostKeyChecking { Yes = "yes" }
    crate::PolecatPhase {
        Idle = "Idle", Working = "Working", Done = "Done", Stuck = "Stuck", Terminated = "Terminated",
    }
    crate::Activity {
        Working = "Working", Quiet = "Quiet", WaitingForHuman = "WaitingForHuman", Wedged = "Wedged",
        Dead = "Dead",
    }
    crate::MergePhase {
        Queued = "Queued", Testing = "Testing", Landed = "Landed", Rework = "Rework",
        Rejected = "Rejected", Superseded = "Superseded",
    }
    crate::RefineryPhase { Idle = "Idle", Processing = "Processing", Error = "Error" }
    crate::RigPhase { Initializing = "Initializing", Ready = "Ready", Degraded = "Degraded" }
    crate::WitnessPhase { Pending = "Pending", Active = "Active", Degraded = "Degraded" }
    crate::ConvoyPhase {
        Pending = "Pending", InProgress = "InProgress", Complete = "Complete", Failed = "Failed",
    }
    crate::ConvoyBeadPhase {
        Unknown = "Unknown", Open = "Open", Blocked = "Blocked", Ready = "Ready",
        Working = "Working", Submitted = "Submitted", Done = "Done", Failed = "Failed",
    }
    crate::FailurePolicy { Continue = "Continue", Stop = "Stop" }
    crate::BeadBackend { GitJsonl = "GitJsonl", HttpV0 = "HttpV0" }
    crate::WritePolicy { ReadOnly = "ReadOnly", Write = "Write", AllowExportOnly = "AllowExportOnly" }
    crate::BeadStorePhase { Pending = "Pending", Synced = "Synced", Error = "Error" }
    crate::Severity { Low = "low", Medium = "medium", High = "high", Critical = "critical" }
    crate::EscalationPhase { Open = "Open", Acknowledged = "Acknowledged", Closed = "Closed" }
    crate::DeliveryState { Pending = "Pending", Sent = "Sent", Failed = "Failed" }
    crate::Channel { Mayor = "mayor", Webhook = "webhook", Slack = "slack", Email = "email" }
    crate::MailTls { TLS = "TLS", StartTLS = "StartTLS", None = "None" }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_value_is_written_as_serde_writes_it() {
        for (name, text, written) in super::texts() {
            assert_eq!(written, text, "{name}");
        }
    }
}
