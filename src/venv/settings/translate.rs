//! pip's settings in uv's words: one table for variables, one for arguments.

use super::environment::Variables;

/// pip's variable (or its alias), uv's, and how the value changes. uv's own wins where it is set.
/// Sources: pip's "Configuration", uv's "Environment variables".
const FOR_UV: &[(&str, &str, Change)] = &[
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", Change::Same),
    ("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL", Change::Same),
    ("PIP_FIND_LINKS", "UV_FIND_LINKS", Change::Commas),
    ("PIP_CERT", "SSL_CERT_FILE", Change::Same),
    ("PIP_CLIENT_CERT", "SSL_CLIENT_CERT", Change::Same),
    ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST", Change::Same),
    ("PIP_PROXY", "HTTP_PROXY", Change::Same),
    ("PIP_PROXY", "HTTPS_PROXY", Change::Same),
    ("PIP_DEFAULT_TIMEOUT", "UV_HTTP_TIMEOUT", Change::Same),
    ("PIP_TIMEOUT", "UV_HTTP_TIMEOUT", Change::Same),
    ("PIP_CONSTRAINT", "UV_CONSTRAINT", Change::Same),
    ("PIP_BUILD_CONSTRAINT", "UV_BUILD_CONSTRAINT", Change::Same),
    ("PIP_NO_BUILD_ISOLATION", "UV_NO_BUILD_ISOLATION", Change::SwitchOff("1")),
    ("PIP_PRE", "UV_PRERELEASE", Change::Switch("allow")),
    ("PIP_REQUIRE_HASHES", "UV_REQUIRE_HASHES", Change::Switch("1")),
    ("PIP_RETRIES", "UV_HTTP_RETRIES", Change::Same),
];

/// The same for what uv takes as an argument only: with `uv pip install`, and with `uv sync` for one
/// package and for all.
const UV_ARGUMENTS: &[(&str, &str, Option<OfSync>, Change)] = &[
    ("PIP_NO_BINARY", "--no-binary", Some(("--no-binary-package", "--no-binary")), Change::Each),
    ("PIP_ONLY_BINARY", "--only-binary", Some(("--no-build-package", "--no-build")), Change::Each),
    ("PIP_NO_DEPS", "--no-deps", None, Change::Switch("")),
    ("PIP_NO_INDEX", "--no-index", Some(("--no-index", "--no-index")), Change::Switch("")),
    ("PIP_CONFIG_SETTINGS", "--config-setting", Some(("--config-setting", "--config-setting")), Change::Same),
];

/// What uv is to do: `pip install`, `sync`, `pip compile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::venv) enum UvCommand {
    Install,
    Sync,
    Compile,
}

/// An argument of `uv sync`: for one value, and for all packages.
type OfSync = (&'static str, &'static str);

/// Variables that make pip install something else, and that uv has no word for.
const PIP_ALONE: &[&str] = &[
    "PIP_ABI",
    "PIP_BUILD_OPTION",
    "PIP_GLOBAL_OPTION",
    "PIP_IGNORE_REQUIRES_PYTHON",
    "PIP_IMPLEMENTATION",
    "PIP_INSTALL_OPTION",
    "PIP_PLATFORM",
    "PIP_PREFER_BINARY",
    "PIP_PYTHON_VERSION",
    "PIP_UPLOADED_PRIOR_TO",
    "PIP_USE_FEATURE",
];

/// Variables that would install something else, or elsewhere, than a podstrap's environment: no engine
/// gets them.
const UNHEEDED: &[&str] = &[
    "PIP_DRY_RUN",
    "PIP_EDITABLE",
    "PIP_GROUP",
    "PIP_PREFIX",
    "PIP_REQUIREMENT",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
];

#[derive(Clone, Copy)]
enum Change {
    /// As it is.
    Same,
    /// White space becomes commas.
    Commas,
    /// pip's true becomes this; its false nothing.
    Switch(&'static str),
    /// The other way round: pip takes the variable of a `--no-` option for the option's opposite.
    /// <https://github.com/pypa/pip/issues/5735>
    SwitchOff(&'static str),
    /// One argument for each word.
    Each,
}

/// Says which variables do not count, or not with this engine.
pub(super) fn warn(vars: &Variables, engine_is_uv: bool) {
    for name in UNHEEDED.iter().filter(|name| vars.get(name).is_some_and(|value| !is_false(value))) {
        tracing::warn!("{name} does not count: podstrap's own flags say what is installed, and where");
    }
    for name in PIP_ALONE.iter().filter(|name| engine_is_uv && vars.get(name).is_some_and(|value| !is_false(value))) {
        tracing::warn!("{name} does not count: uv has nothing like it (--engine pip heeds it)");
    }
}

/// Variables for uv that say what pip's say.
pub(super) fn variables(vars: &Variables) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (pip, uv, form) in FOR_UV {
        let named_otherwise = *uv == "UV_DEFAULT_INDEX" && vars.get("UV_INDEX_URL").is_some()
            || *uv == "UV_EXTRA_INDEX_URL" && vars.get("UV_INDEX").is_some()
            || uv.ends_with("_PROXY") && (vars.get(&uv.to_lowercase()).is_some() || vars.get("ALL_PROXY").is_some());
        if let (Some(value), None, false) = (vars.get(pip), vars.get(uv), named_otherwise) {
            found.extend(form.apply(value).into_iter().map(|value| (*uv, value)));
        }
    }
    // pip takes the best version of all indexes; uv would stop at the first that has the name.
    if vars.get("UV_INDEX_STRATEGY").is_none() {
        found.push(("UV_INDEX_STRATEGY", "unsafe-best-match".to_owned()));
    }
    found
}

/// Arguments for uv that say what pip's variables say.
pub(super) fn arguments(vars: &Variables, only_binary: bool, of: UvCommand) -> Vec<String> {
    let sync = of == UvCommand::Sync;
    let mut args = Vec::new();
    if only_binary {
        args.push("--no-build".to_owned());
        // uv builds what is editable all the same; of a lock file nothing is.
        args.extend((of == UvCommand::Install).then(|| "--no-editable".to_owned()));
    }
    for (pip, flag, of_sync, form) in UV_ARGUMENTS {
        // Twice they are refused.
        let said = only_binary && pip.ends_with("_BINARY") || of == UvCommand::Compile && *pip == "PIP_NO_DEPS";
        for value in vars.get(pip).filter(|_| !said).map(|value| form.apply(value)).unwrap_or_default() {
            let (flag, value) = match (sync, of_sync) {
                (false, _) => (*flag, value),
                (true, None) => continue,
                (true, Some((_, all))) if value == ":all:" => (*all, String::new()),
                (true, Some(_)) if value == ":none:" => continue,
                (true, Some((one, _))) => (*one, value),
            };
            args.push(flag.to_owned());
            args.extend(Some(value).filter(|value| !value.is_empty()));
        }
    }
    args
}

/// pip's idea of a truth, and of the opposite (Python's `strtobool`).
pub(super) fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "y", "t", "on"].contains(&value.to_lowercase().as_str())
}
fn is_false(value: &str) -> bool {
    ["0", "false", "no", "n", "f", "off"].contains(&value.to_lowercase().as_str())
}

impl Change {
    fn apply(self, value: &str) -> Vec<String> {
        match self {
            Self::Same => vec![value.to_owned()],
            Self::Commas => vec![value.split_whitespace().collect::<Vec<_>>().join(",")],
            Self::Each => value
                .split(|c: char| c == ',' || c.is_whitespace())
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            Self::Switch(on) => is_true(value).then(|| on.to_owned()).into_iter().collect(),
            Self::SwitchOff(on) => is_false(value).then(|| on.to_owned()).into_iter().collect(),
        }
    }
}
