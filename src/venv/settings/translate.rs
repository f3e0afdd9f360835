//! Translates pip's settings for uv: one table for variables, one for arguments.

use super::environment::Variables;

/// The variable of pip (or its alias), that of uv, and the change of the value. A set variable of uv has precedence.
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

/// The same for settings that uv takes only as arguments: with `uv pip install`, and with `uv sync` for one package
/// and for all packages.
const UV_ARGUMENTS: &[(&str, &str, Option<OfSync>, Change)] = &[
    ("PIP_NO_BINARY", "--no-binary", Some(("--no-binary-package", "--no-binary")), Change::Each),
    ("PIP_ONLY_BINARY", "--only-binary", Some(("--no-build-package", "--no-build")), Change::Each),
    ("PIP_NO_DEPS", "--no-deps", None, Change::Switch("")),
    ("PIP_NO_INDEX", "--no-index", Some(("--no-index", "--no-index")), Change::Switch("")),
    ("PIP_CONFIG_SETTINGS", "--config-setting", Some(("--config-setting", "--config-setting")), Change::Same),
];

/// A command of uv: `pip install`, `sync`, `pip compile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::venv) enum UvCommand {
    Install,
    Sync,
    Compile,
}

/// An argument of `uv sync`: for one package, and for all.
type OfSync = (&'static str, &'static str);

/// Variables that change the result of pip and have no counterpart in uv.
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

/// Variables that would change the packages or the destination of an installation. No engine gets them.
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
    /// The same value.
    Same,
    /// White space becomes commas.
    Commas,
    /// A true value of pip becomes this value. A false one becomes nothing.
    Switch(&'static str),
    /// The opposite: pip inverts the variable of a `--no-` option.
    /// <https://github.com/pypa/pip/issues/5735>
    SwitchOff(&'static str),
    /// One argument for each word.
    Each,
}

/// Warns about variables that podstrap or the engine ignores.
pub(super) fn warn(vars: &Variables, engine_is_uv: bool) {
    for name in UNHEEDED.iter().filter(|name| vars.get(name).is_some_and(|value| !is_false(value))) {
        tracing::warn!("ignoring {name}: podstrap's flags set the packages and the destination");
    }
    for name in PIP_ALONE.iter().filter(|name| engine_is_uv && vars.get(name).is_some_and(|value| !is_false(value))) {
        tracing::warn!("ignoring {name}: uv has no counterpart (--engine pip applies it)");
    }
}

/// pip's settings as variables for uv.
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
    // pip takes the best version of all indexes. By default, uv stops at the first index that knows the name.
    if vars.get("UV_INDEX_STRATEGY").is_none() {
        found.push(("UV_INDEX_STRATEGY", "unsafe-best-match".to_owned()));
    }
    found
}

/// pip's settings as arguments for uv.
pub(super) fn arguments(vars: &Variables, only_binary: bool, of: UvCommand) -> Vec<String> {
    let sync = of == UvCommand::Sync;
    let mut args = Vec::new();
    if only_binary {
        args.push("--no-build".to_owned());
        // uv builds editable projects in spite of --no-build. A lock file installs none.
        args.extend((of == UvCommand::Install).then(|| "--no-editable".to_owned()));
    }
    for (pip, flag, of_sync, form) in UV_ARGUMENTS {
        // uv rejects a repeated argument.
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

/// Whether pip takes the value for true (Python's `strtobool`).
pub(super) fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "y", "t", "on"].contains(&value.to_lowercase().as_str())
}
/// Whether pip takes the value for false.
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
