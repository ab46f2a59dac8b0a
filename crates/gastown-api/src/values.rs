//! The text of each enum value, as it is written in an object.

/// Gives an enum without fields `ALL`, `as_str` and [`Display`](std::fmt::Display), which are the
/// text that the API server stores. A test below compares them with serde's. After `;` is the variant
/// that stands for values of later versions, where an enum has one of its own.
macro_rules! values {
    ($($name:ty { $($variant:ident = $text:literal),+ $(,)? $(; $unknown:ident)? })+) => {$(
        impl $name {
            /// All values that this version writes, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as it is written in an object.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                    $(Self::$unknown => stringify!($unknown),)?
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

        /// How each enum reads a value that this version does not have.
        #[cfg(test)]
        fn of_a_later_version() -> Vec<(&'static str, Result<String, String>)> {
            let value = serde_json::json!("FromALaterVersion");
            vec![$((
                stringify!($name),
                serde_json::from_value::<$name>(value.clone())
                    .map(|read| read.as_str().to_owned())
                    .map_err(|e| e.to_string()),
            )),+]
        }
    };
}

values! {
    crate::AgentKind { ClaudeCode = "claude-code", Generic = "generic"; Unknown }
    crate::DesiredState { Idle = "Idle", Working = "Working", Terminated = "Terminated"; Unknown }
    crate::ExecutionMode { Kubernetes = "kubernetes"; Unknown }
    crate::Provider { Litellm = "litellm", Anthropic = "anthropic", Openai = "openai", Ollama = "ollama"; Unknown }
    crate::StrictHostKeyChecking { Yes = "yes"; Unknown }
    crate::PolecatPhase {
        Idle = "Idle", Working = "Working", Done = "Done", Stuck = "Stuck", Terminated = "Terminated",
        ; Unknown
    }
    crate::Activity {
        Working = "Working", Quiet = "Quiet", WaitingForHuman = "WaitingForHuman", Wedged = "Wedged",
        Dead = "Dead",
        ; Unknown
    }
    crate::MergePhase {
        Queued = "Queued", Testing = "Testing", Landed = "Landed", Rework = "Rework",
        Rejected = "Rejected", Superseded = "Superseded",
        ; Unknown
    }
    crate::GateRunPhase {
        Running = "Running", Passed = "Passed", Failed = "Failed", Broken = "Broken"; Unknown
    }
    crate::GateRunPurpose { Test = "Test", Control = "Control", Retry = "Retry"; Unknown }
    crate::RefineryPhase { Idle = "Idle", Processing = "Processing", Error = "Error"; Unknown }
    crate::RigPhase { Initializing = "Initializing", Ready = "Ready", Degraded = "Degraded"; Unknown }
    crate::WitnessPhase { Pending = "Pending", Active = "Active", Degraded = "Degraded"; Unknown }
    crate::ConvoyPhase {
        Pending = "Pending", InProgress = "InProgress", Complete = "Complete", Failed = "Failed",
        ; Unknown
    }
    crate::ConvoyBeadPhase {
        Unknown = "Unknown", Open = "Open", Blocked = "Blocked", Ready = "Ready",
        Working = "Working", Submitted = "Submitted", Done = "Done", Failed = "Failed",
    }
    crate::FailurePolicy { Continue = "Continue", Stop = "Stop"; Unknown }
    crate::BeadBackend { GitJsonl = "GitJsonl", HttpV0 = "HttpV0"; Unknown }
    crate::WritePolicy { ReadOnly = "ReadOnly", Write = "Write", AllowExportOnly = "AllowExportOnly"; Unknown }
    crate::BeadStorePhase { Pending = "Pending", Synced = "Synced", Error = "Error"; Unknown }
    crate::Severity { Low = "low", Medium = "medium", High = "high", Critical = "critical" }
    crate::EscalationPhase { Open = "Open", Acknowledged = "Acknowledged", Closed = "Closed"; Unknown }
    crate::DeliveryState { Pending = "Pending", Sent = "Sent", Failed = "Failed" }
    crate::Channel { Mayor = "mayor", Webhook = "webhook", Slack = "slack", Email = "email"; Unknown }
    crate::MailTls { TLS = "TLS", StartTLS = "StartTLS", None = "None"; Unknown }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_value_is_written_as_serde_writes_it() {
        for (name, text, written) in super::texts() {
            assert_eq!(written, text, "{name}");
        }
    }

    #[test]
    fn a_value_of_a_later_version_makes_no_object_unreadable() {
        for (name, read) in super::of_a_later_version() {
            let wanted = match name.rsplit("::").next().unwrap_or_default().trim() {
                "Severity" => "critical",
                "DeliveryState" => "Pending",
                _ => "Unknown",
            };
            assert_eq!(read, Ok(wanted.to_owned()), "{name}");
        }
    }
}
