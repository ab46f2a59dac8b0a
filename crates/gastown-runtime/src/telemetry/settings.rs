//! Where telemetry is sent, by the variables that OpenTelemetry specifies for every SDK. Pure: a value
//! that cannot be used becomes a warning and its default, and never an error.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

/// What part of the reconciles and calls is recorded, unless a variable states it.
const DEFAULT_RATIO: f64 = 0.01;

/// What telemetry is sent, and where.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Where traces are sent, if they are.
    pub traces: Option<Endpoint>,
    /// Where logs are sent, if they are.
    pub logs: Option<Endpoint>,
    /// Where metrics are sent, if they are.
    pub metrics: Option<Endpoint>,
    /// How traces wait to be sent.
    pub batch: Batch,
    /// How often metrics are sent.
    pub metric_interval: Duration,
    /// Which of the reconciles and calls are recorded.
    pub sampler: Option<Sampler>,
    /// `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, in order.
    pub resource: Vec<(String, String)>,
}

/// One signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Logs,
    Metrics,
}

impl Signal {
    /// Its part of a variable's name.
    fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
        }
    }

    /// Its path of OTLP over HTTP.
    fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
        }
    }
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// `grpc`.
    Grpc,
    /// `http/protobuf`.
    Http,
}

/// Where one signal is sent.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// The whole address, its path included: over gRPC it is `/`.
    pub uri: Uri,
    pub protocol: Protocol,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Whether requests are compressed by gzip.
    pub gzip: bool,
    /// The authorities that the server's certificate is checked with, as a PEM file; none: the
    /// platform's.
    pub certificate: Option<PathBuf>,
    /// Certificate and key that are shown to the server, as PEM files.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How spans wait to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The most that wait; more are dropped.
    pub queue: usize,
    /// The most in one request.
    pub size: usize,
    /// How long the first one waits for others.
    pub delay: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self { queue: 2048, size: 512, delay: Duration::from_secs(1) }
    }
}

/// Reads variables, and keeps what is wrong with them.
struct Reader<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

/// The settings by the variables that `get` reads, and what is wrong with them.
pub(super) fn settings(get: &dyn Fn(&str) -> Option<String>) -> (Settings, Vec<String>) {
    let mut reader = Reader { get, warnings: Vec::new() };
    let settings = reader.settings();
    (settings, reader.warnings)
}

impl Reader<'_> {
    /// A variable's value; an empty one counts as absent.
    fn read(&self, name: &str) -> Option<String> {
        let value = (self.get)(name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn warn(&mut self, name: &str, value: &str, why: &str) {
        self.warnings.push(format!("{name}={value:?} {why}"));
    }

    /// A number of at least 1.
    fn number(&mut self, name: &str, default: u64) -> u64 {
        let Some(text) = self.read(name) else { return default };
        match text.parse() {
            Ok(number) if number > 0 => number,
            _ => {
                self.warn(name, &text, &format!("is not a number above 0: {default} is used"));
                default
            }
        }
    }

    /// The variable of one signal, else that of all; with its name.
    fn of_signal(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.variable());
        let all = format!("OTEL_EXPORTER_OTLP_{what}");
        [own, all].into_iter().find_map(|name| self.read(&name).map(|value| (name, value)))
    }

    fn settings(&mut self) -> Settings {
        let is_disabled =
            self.read("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        if is_disabled {
            return Settings::default();
        }
        let default = Batch::default();
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE", default.queue as u64);
        let size = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", default.size as u64);
        let delay = self.number("OTEL_BSP_SCHEDULE_DELAY", default.delay.as_millis() as u64);
        // More would be memory that the rest of the controller needs.
        let queue = usize::try_from(queue).unwrap_or(usize::MAX).min(16_384);
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(queue);
        let interval = self.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000);
        Settings {
            traces: self.endpoint(Signal::Traces),
            logs: self.endpoint(Signal::Logs),
            metrics: self.endpoint(Signal::Metrics),
            batch: Batch { queue, size, delay: Duration::from_millis(delay) },
            metric_interval: Duration::from_millis(interval),
            sampler: Some(self.sampler()),
            service_name: self.read("OTEL_SERVICE_NAME"),
            resource: self.pairs("OTEL_RESOURCE_ATTRIBUTES"),
        }
    }

    /// Whether a signal is sent by OTLP. Traces are wherever there is an endpoint; logs and metrics,
    /// which have another way out, only when that is asked for.
    fn is_sent(&mut self, signal: Signal) -> bool {
        let name = format!("OTEL_{}_EXPORTER", signal.variable());
        let has_endpoint = self.of_signal(signal, "ENDPOINT").is_some();
        let Some(wanted) = self.read(&name) else {
            return signal == Signal::Traces && has_endpoint;
        };
        let mut is_sent = false;
        for exporter in wanted.split(',').map(str::trim) {
            match (exporter, signal) {
                ("otlp", _) => is_sent = true,
                // What is there anyhow.
                ("none", _) | ("console", Signal::Logs) | ("prometheus", Signal::Metrics) => {}
                _ => self.warn(
                    &name,
                    &wanted,
                    "has an exporter that is not otlp or none: it is left out",
                ),
            }
        }
        is_sent
    }

    fn endpoint(&mut self, signal: Signal) -> Option<Endpoint> {
        if !self.is_sent(signal) {
            return None;
        }
        let protocol = self.protocol(signal);
        let uri = self.uri(signal, protocol)?;
        let timeout = match self.of_signal(signal, "TIMEOUT") {
            Some((name, _)) => self.number(&name, 10_000),
            None => 10_000,
        };
        let gzip = match self.of_signal(signal, "COMPRESSION") {
            Some((_, value)) if value == "gzip" => true,
            Some((_, value)) if value == "none" => false,
            Some((name, value)) => {
                self.warn(&name, &value, "is neither gzip nor none: nothing is compressed");
                false
            }
            None => false,
        };
        let file = |what| self.of_signal(signal, what).map(|(_, file)| PathBuf::from(file));
        let (certificate, certificates) = (file("CERTIFICATE"), file("CLIENT_CERTIFICATE"));
        Some(Endpoint {
            uri,
            protocol,
            timeout: Duration::from_millis(timeout),
            gzip,
            certificate,
            client: certificates.zip(file("CLIENT_KEY")),
            headers: self.headers(signal),
        })
    }

    fn protocol(&mut self, signal: Signal) -> Protocol {
        let Some((name, value)) = self.of_signal(signal, "PROTOCOL") else { return Protocol::Grpc };
        match value.as_str() {
            "grpc" => Protocol::Grpc,
            "http/protobuf" => Protocol::Http,
            "http/json" => {
                self.warn(&name, &value, "is not supported: http/protobuf is used");
                Protocol::Http
            }
            _ => {
                self.warn(&name, &value, "is neither grpc nor http/protobuf: grpc is used");
                Protocol::Grpc
            }
        }
    }

    /// The address. Over HTTP, a signal's path is added to the endpoint of all signals, and the
    /// endpoint of one signal is used as it is.
    fn uri(&mut self, signal: Signal, protocol: Protocol) -> Option<Uri> {
        let default = match protocol {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::Http => "http://localhost:4318",
        };
        let (name, text) = self
            .of_signal(signal, "ENDPOINT")
            .unwrap_or_else(|| ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), default.to_owned()));
        let insecure = self.of_signal(signal, "INSECURE").is_some_and(|(_, v)| v == "true");
        let whole = match (text.contains("://"), protocol) {
            (false, Protocol::Grpc) if insecure => format!("http://{text}"),
            (false, Protocol::Grpc) => format!("https://{text}"),
            _ => text.clone(),
        };
        let is_own = !name.ends_with("_OTLP_ENDPOINT");
        let parsed = whole.parse::<Uri>().ok().filter(is_usable);
        let uri = parsed.and_then(|uri| {
            let path = match protocol {
                // Services and methods have paths of their own.
                Protocol::Grpc => "/".to_owned(),
                Protocol::Http if is_own => uri.path().to_owned(),
                Protocol::Http => {
                    format!("{}{}", uri.path().trim_end_matches('/'), signal.http_path())
                }
            };
            Uri::builder()
                .scheme(uri.scheme()?.clone())
                .authority(uri.authority()?.clone())
                .path_and_query(path)
                .build()
                .ok()
        });
        if uri.is_none() {
            let what = signal.variable().to_lowercase();
            self.warn(&name, &text, &format!("is not an http or https URL: {what} are not sent"));
        }
        uri
    }

    fn headers(&mut self, signal: Signal) -> Vec<(HeaderName, HeaderValue)> {
        let Some((name, _)) = self.of_signal(signal, "HEADERS") else { return Vec::new() };
        let mut headers = Vec::new();
        for (key, value) in self.pairs(&name) {
            match (HeaderName::try_from(key.as_str()), HeaderValue::try_from(value.as_str())) {
                (Ok(key), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.push((key, value));
                }
                // The value may be a secret.
                _ => self
                    .warnings
                    .push(format!("{name}: header {key:?} is not a header: it is left out")),
            }
        }
        headers
    }

    /// `key=value,key=value`, whose values may be percent-encoded.
    fn pairs(&mut self, name: &str) -> Vec<(String, String)> {
        let Some(text) = self.read(name) else { return Vec::new() };
        let mut pairs = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
                    pairs.push((key.trim().to_owned(), value));
                }
                _ => self
                    .warnings
                    .push(format!("{name} has a part without a key or a value: it is left out")),
            }
        }
        pairs
    }

    fn sampler(&mut self) -> Sampler {
        let name = "OTEL_TRACES_SAMPLER";
        let ratio = self.ratio();
        let by_ratio = || Sampler::TraceIdRatioBased(ratio);
        let of_parent = |sampler| Sampler::ParentBased(Box::new(sampler));
        let Some(wanted) = self.read(name) else { return of_parent(by_ratio()) };
        match wanted.as_str() {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => by_ratio(),
            "parentbased_always_on" => of_parent(Sampler::AlwaysOn),
            "parentbased_always_off" => of_parent(Sampler::AlwaysOff),
            "parentbased_traceidratio" => of_parent(by_ratio()),
            _ => {
                self.warn(name, &wanted, "is not known: parentbased_traceidratio is used");
                of_parent(by_ratio())
            }
        }
    }

    fn ratio(&mut self) -> f64 {
        let name = "OTEL_TRACES_SAMPLER_ARG";
        let Some(text) = self.read(name) else { return DEFAULT_RATIO };
        match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                self.warn(name, &text, &format!("is not between 0 and 1: {DEFAULT_RATIO} is used"));
                DEFAULT_RATIO
            }
        }
    }
}

/// Whether requests can be sent to it: by HTTP, to a host and, if it has one, a port.
fn is_usable(uri: &Uri) -> bool {
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else { return false };
    // What is no port is part of the authority all the same.
    let port = authority.as_str().rsplit_once(host).map_or("", |(_, port)| port);
    matches!(uri.scheme_str(), Some("http" | "https"))
        && !host.is_empty()
        && (port.is_empty() || uri.port_u16().is_some())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Settings, Vec<String>) {
        let all: HashMap<&str, &str> = variables.iter().copied().collect();
        settings(&|name| all.get(name).map(|value| (*value).to_owned()))
    }

    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    #[test]
    fn nothing_is_sent_without_an_endpoint_or_when_it_is_disabled() {
        let (none, warnings) = read(&[]);
        assert!(none.traces.is_none() && none.logs.is_none() && none.metrics.is_none());
        assert!(warnings.is_empty());
        assert!(read(&[(ALL, "")]).0.traces.is_none());
        assert!(read(&[(ALL, "http://c:4317"), ("OTEL_SDK_DISABLED", "TRUE")]).0.traces.is_none());
        assert!(
            read(&[(ALL, "http://c:4317"), ("OTEL_TRACES_EXPORTER", "none")]).0.traces.is_none()
        );
    }

    #[test]
    fn traces_go_to_any_endpoint_and_logs_and_metrics_only_when_asked_for() {
        let (settings, _) = read(&[(ALL, "http://c:4317")]);
        assert!(settings.traces.is_some() && settings.logs.is_none() && settings.metrics.is_none());
        let asked = [("OTEL_LOGS_EXPORTER", "otlp"), ("OTEL_METRICS_EXPORTER", "otlp,prometheus")];
        let (settings, warnings) = read(&asked);
        assert!(settings.traces.is_none() && settings.metrics.is_some());
        assert_eq!(settings.logs.unwrap().uri.to_string(), "http://localhost:4317/");
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn a_signal_s_own_variable_wins_and_its_endpoint_is_used_as_it_is() {
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let uri = |variables: &[(&str, &str)]| read(variables).0.traces.unwrap().uri.to_string();
        assert_eq!(uri(&[(ALL, "https://c/otlp/"), http]), "https://c/otlp/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t:1/x");
        assert_eq!(uri(&[(ALL, "https://c"), own, http]), "https://t:1/x");
        let grpc = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
        assert_eq!(uri(&[own, http, grpc]), "https://t:1/");
        assert_eq!(uri(&[(ALL, "c:4317")]), "https://c:4317/");
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
        assert_eq!(uri(&[(ALL, "c:4317"), insecure]), "http://c:4317/");
    }

    #[test]
    fn what_cannot_be_used_is_a_warning_and_its_default() {
        for bad in ["unix:/x", "https://", "ftp://c", "http://c:port", "/v1"] {
            let (settings, warnings) = read(&[(ALL, bad)]);
            assert!(settings.traces.is_none(), "{bad}");
            assert_eq!(warnings.len(), 1, "{bad}: {warnings:?}");
            assert!(warnings[0].starts_with(ALL), "{warnings:?}");
        }
        let (settings, warnings) = read(&[
            (ALL, "http://c:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "thrift"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "lzma"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "ok=1,no key=2,alone"),
            ("OTEL_TRACES_SAMPLER", "some"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b%20c,=d"),
        ]);
        let traces = settings.traces.unwrap();
        assert_eq!(
            (traces.protocol, traces.timeout.as_secs(), traces.gzip),
            (Protocol::Grpc, 10, false)
        );
        assert_eq!(traces.headers.len(), 1);
        assert_eq!(settings.batch, Batch::default());
        assert_eq!(settings.resource, [("a".to_owned(), "b c".to_owned())]);
        assert_eq!(warnings.len(), 9, "{warnings:?}");
    }

    #[test]
    fn one_of_a_hundred_reconciles_is_recorded_by_default() {
        let shown =
            |variables: &[(&str, &str)]| format!("{:?}", read(variables).0.sampler.unwrap());
        assert_eq!(shown(&[]), "ParentBased(TraceIdRatioBased(0.01))");
        assert_eq!(shown(&[("OTEL_TRACES_SAMPLER", "always_off")]), "AlwaysOff");
        let half = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
        assert_eq!(shown(&half), "TraceIdRatioBased(0.5)");
    }

    #[test]
    fn headers_are_not_printed() {
        let secret = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2");
        let (settings, _) = read(&[(ALL, "http://c:4317"), secret]);
        assert!(!format!("{settings:?}").contains("hunter2"));
        let headers = settings.traces.unwrap().headers;
        assert_eq!(headers[0].1.to_str().unwrap(), "Bearer hunter2");
    }
}
