//! `claude`: the agent's container, for every kind of agent.

use gastown_api::{Provider, SecretKeyRef};
use gastown_core::polecat;
use gastown_types::text;
use k8s_openapi::api::core::v1::{
    ConfigMapEnvSource, Container, EnvFromSource, EnvVar, EnvVarSource, SecretKeySelector,
};

use super::metadata::{CLAUDE, DEADLINE};
use super::parts::{self, Build, common_env, literal, proxy_env, resources, var};
use super::volumes;

/// The longest task in a variable: Linux allows 128 KiB. The whole task is in the prompt's file.
const MAX_TASK_BYTES: usize = 60_000;

pub(super) fn container(b: &Build) -> Container {
    let settings = &b.inputs.spec.pod;
    let mut args = vec!["run".to_owned()];
    if !settings.command.is_empty() {
        args.push("--".to_owned());
        args.extend(settings.command.iter().map(|a| literal(a)));
    }
    let image = settings.image.as_deref().unwrap_or(&b.defaults.agent_image);
    let env_from = settings.env_from.as_ref().map(|name| {
        vec![EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource { name: name.clone(), optional: Some(false) }),
            ..EnvFromSource::default()
        }]
    });
    Container {
        command: Some(vec!["/gastown/tools/bin/gt".to_owned()]),
        args: Some(args),
        working_dir: Some("/workspace/repo".to_owned()),
        env: Some(env(b)),
        env_from,
        volume_mounts: Some(volumes::of_claude(b)),
        resources: Some(settings.resources.clone().unwrap_or_else(|| {
            resources(&[("cpu", "500m"), ("memory", "1Gi")], &[("cpu", "2"), ("memory", "4Gi")])
        })),
        ..parts::container(CLAUDE, image, b.defaults)
    }
}

fn env(b: &Build) -> Vec<EnvVar> {
    let spec = &b.inputs.spec;
    let settings = &spec.pod;
    let limit = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
    // The user's come first: the last of a name wins, and ours are not to be changed. Of the user's
    // own the last wins too.
    let mut env: Vec<EnvVar> = vec![
        var("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        var("TRACEPARENT", polecat::life(b.polecat).root().to_string()),
    ];
    env.extend(provider(b));
    env.extend(proxy_env(b));
    for own in &settings.env {
        // The proxy's variables have two spellings each: both are the user's.
        let is_proxy = own.name.to_ascii_lowercase().ends_with("_proxy");
        env.retain(|e| e.name != own.name && !(is_proxy && e.name.eq_ignore_ascii_case(&own.name)));
        env.push(own.clone());
    }
    let mut ours = common_env(b);
    ours.extend([
        var("HOME", "/home/nonroot"),
        var("TMPDIR", "/tmp"),
        var("GT_ISSUE", spec.bead.as_deref().unwrap_or_default()),
        var("GT_TASK_DESCRIPTION", text::truncate(&spec.task, MAX_TASK_BYTES)),
        var("GASTOWN_AGENT", settings.agent.as_str()),
        var("GASTOWN_MODEL", settings.model.as_deref().unwrap_or_default()),
        var(
            "GASTOWN_AGENT_ARGS",
            serde_json::to_string(&settings.args).unwrap_or_else(|_| "[]".to_owned()),
        ),
        var(DEADLINE, settings.deadline_seconds.to_string()),
        var("GASTOWN_MAX_TURNS", limit(settings.budget.max_turns)),
        var("GASTOWN_MAX_TOKENS", limit(settings.budget.max_tokens)),
        var(
            "GASTOWN_MAX_COST_USD",
            settings.budget.max_cost_usd.map(|n| n.to_string()).unwrap_or_default(),
        ),
        var("GASTOWN_PROMPT_FILE", "/gastown/prompt/prompt.md"),
    ]);
    env.retain(|e| !ours.iter().any(|o| o.name == e.name));
    env.extend(ours);
    env
}

/// The variables with the model's URL and the key for it.
///
/// The key is not optional: without it the kubelet does not start the container, names the missing
/// Secret or key in the pod's status, and starts it as soon as that exists. An agent without a key
/// would only fail.
fn provider(b: &Build) -> Vec<EnvVar> {
    let settings = &b.inputs.spec.pod;
    let (url, key) = match settings.provider {
        // A valid spec has no unknown provider.
        Provider::Litellm | Provider::Anthropic | Provider::Unknown => {
            ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY")
        }
        Provider::Openai => ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
        Provider::Ollama => ("OLLAMA_HOST", "OLLAMA_API_KEY"),
    };
    let endpoint = settings.endpoint.as_ref().map(|e| var(url, e));
    let secret = settings.api_key.as_ref().map(|r| from_secret(key, r));
    endpoint.into_iter().chain(secret).collect()
}

fn from_secret(name: &str, secret: &SecretKeyRef) -> EnvVar {
    let selector = SecretKeySelector {
        name: secret.name.clone(),
        key: secret.key.clone(),
        optional: Some(false),
    };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}
