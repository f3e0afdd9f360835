//! The schema of a configuration: one table for each object, with the types and rules of its members.
//!
//! This file has only tables. To add a member, add a line to the table of its object. A new rule also
//! needs an arm of `rule` in `validate/members.rs`.
//!
//! The source is `nxt_conf_validation.c` of Unit 1.35, built with all features of FreeUnit's and NGINX's
//! images. A test compares names, types and flags with
//! `tests/fixtures/unit-contract/config-members.json`.

/// A set of JSON types, one bit each. An integer is a number without a fraction: `2e2`, `1.0`.
pub type Types = u8;
pub const NULL: Types = 1;
pub const BOOLEAN: Types = 1 << 1;
pub const INTEGER: Types = 1 << 2;
pub const FRACTION: Types = 1 << 3;
pub const STRING: Types = 1 << 4;
pub const ARRAY: Types = 1 << 5;
pub const OBJECT: Types = 1 << 6;
pub const NUMBER: Types = INTEGER | FRACTION;
pub const ANY: Types = 127;

/// The names of the types, in the order of their bits.
pub const NAMES: [&str; 7] =
    ["null", "a boolean", "an integer", "a number with a fraction", "a string", "an array", "an object"];

/// The members of an object.
#[derive(Debug)]
pub struct Table {
    /// The name of the object in messages.
    pub title: &'static str,
    pub members: &'static [Member],
    /// A table with further members of the same object.
    pub then: Option<&'static Table>,
}

#[derive(Debug)]
pub struct Member {
    pub name: &'static str,
    pub types: Types,
    pub rule: Rule,
    pub required: bool,
    /// The string may contain variables (`$uri`). If it does, only these are validated.
    pub template: bool,
}

/// The requirement on a value beyond its type.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    Anything,
    Object(&'static Table),
    /// An integer within these bounds, inclusive.
    Within(i64, i64),
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A string without a null character, at which Unit truncates it.
    Path,
    /// A string or an array of strings.
    Strings,
    /// The same without null characters.
    Arguments,
    Listeners,
    Routes,
    Applications,
    Upstreams,
    Servers,
    AccessLog,
    LogFormat,
    MimeTypes,
    Compressors,
    Encoding,
    Pass,
    Application,
    Forwarded,
    Certificate,
    StringMembers,
    Tickets,
    Patterns,
    EncodedPatterns,
    EncodedSets,
    PatternSets,
    Addresses,
    Scheme,
    Condition,
    Action,
    Share,
    ResponseHeaders,
    Proxy,
    Prefix,
    StackSize,
    Targets(&'static Table),
    WithTargets,
    Options,
    Processes,
    Environment,
    IdMap,
    Cgroup,
    Weight,
    JsModule,
    Telemetry,
    Ratio,
}

const fn member(name: &'static str, types: Types, rule: Rule) -> Member {
    Member { name, types, rule, required: false, template: false }
}
const fn plain(name: &'static str, types: Types) -> Member {
    member(name, types, Rule::Anything)
}
const fn object(name: &'static str, table: &'static Table) -> Member {
    member(name, OBJECT, Rule::Object(table))
}

impl Member {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }
    const fn template(self) -> Self {
        Self { template: true, ..self }
    }
}

impl Table {
    /// All members, including those of the following tables.
    pub fn all(&'static self) -> impl Iterator<Item = &'static Member> {
        std::iter::successors(Some(self), |table| table.then).flat_map(|table| table.members)
    }
    const fn new(title: &'static str, members: &'static [Member]) -> Self {
        Self { title, members, then: None }
    }
    const fn then(self, more: &'static Table) -> Self {
        Self { then: Some(more), ..self }
    }
}

const I32: i64 = i32::MAX as i64;
const THREADS: Rule = Rule::Within(1, I32);

pub static ROOT: Table = Table::new(
    "the configuration",
    &[
        object("settings", &SETTINGS),
        member("listeners", OBJECT, Rule::Listeners),
        member("routes", ARRAY | OBJECT, Rule::Routes),
        member("applications", OBJECT, Rule::Applications),
        member("upstreams", OBJECT, Rule::Upstreams),
        member("access_log", STRING | OBJECT, Rule::AccessLog),
    ],
);

pub static SETTINGS: Table = Table::new(
    "\"settings\"",
    &[
        member("listen_threads", INTEGER, Rule::Within(1, I32)),
        object("http", &HTTP),
        member("telemetry", OBJECT, Rule::Telemetry),
        member("js_module", STRING | ARRAY, Rule::JsModule),
    ],
);

pub static HTTP: Table = Table::new(
    "\"http\"",
    &[
        plain("header_read_timeout", INTEGER),
        plain("body_read_timeout", INTEGER),
        plain("send_timeout", INTEGER),
        plain("idle_timeout", INTEGER),
        plain("large_header_buffer_size", INTEGER),
        plain("large_header_buffers", INTEGER),
        plain("body_buffer_size", INTEGER),
        plain("max_body_size", INTEGER),
        plain("body_temp_path", STRING),
        plain("discard_unsafe_fields", BOOLEAN),
        object("websocket", &WEBSOCKET),
        object("static", &STATIC),
        plain("log_route", BOOLEAN),
        plain("server_version", BOOLEAN),
        plain("chunked_transform", BOOLEAN),
        object("compression", &COMPRESSION),
    ],
);

pub static TELEMETRY: Table = Table::new(
    "\"telemetry\"",
    &[
        plain("endpoint", STRING).required(),
        member("batch_size", INTEGER, Rule::Within(1, i64::MAX)),
        member("protocol", STRING, Rule::OneOf(&["http", "HTTP", "grpc", "GRPC"])).required(),
        member("sampling_ratio", NUMBER, Rule::Ratio),
    ],
);

pub static WEBSOCKET: Table = Table::new(
    "\"websocket\"",
    &[plain("read_timeout", INTEGER), plain("keepalive_interval", INTEGER), plain("max_frame_size", INTEGER)],
);

pub static STATIC: Table = Table::new("\"static\"", &[member("mime_types", OBJECT, Rule::MimeTypes)]);

pub static COMPRESSION: Table = Table::new(
    "\"compression\"",
    &[member("types", STRING | ARRAY, Rule::Patterns), member("compressors", OBJECT | ARRAY, Rule::Compressors)],
);

pub static COMPRESSOR: Table = Table::new(
    "a compressor",
    &[member("encoding", STRING, Rule::Encoding).required(), plain("level", INTEGER), plain("min_length", INTEGER)],
);

pub static LISTENER: Table = Table::new(
    "a listener",
    &[
        member("pass", STRING, Rule::Pass).template(),
        member("application", STRING, Rule::Application),
        member("forwarded", OBJECT, Rule::Forwarded),
        object("client_ip", &CLIENT_IP),
        member("backlog", NUMBER, Rule::Within(-1, I32)),
        object("tls", &TLS),
    ],
);

pub static FORWARDED: Table = Table::new(
    "\"forwarded\"",
    &[
        plain("client_ip", STRING),
        plain("protocol", STRING),
        member("source", STRING | ARRAY, Rule::Addresses).required(),
        plain("recursive", BOOLEAN),
    ],
);

pub static CLIENT_IP: Table = Table::new(
    "\"client_ip\"",
    &[
        member("source", STRING | ARRAY, Rule::Addresses).required(),
        plain("header", STRING).required(),
        plain("recursive", BOOLEAN),
    ],
);

pub static TLS: Table = Table::new(
    "\"tls\"",
    &[
        member("certificate", STRING | ARRAY, Rule::Certificate).required(),
        member("conf_commands", OBJECT, Rule::StringMembers),
        object("session", &SESSION),
    ],
);

pub static SESSION: Table = Table::new(
    "\"session\"",
    &[
        member("cache_size", INTEGER, Rule::Within(0, i64::MAX)),
        member("timeout", INTEGER, Rule::Within(1, i64::MAX)),
        member("tickets", STRING | ARRAY | BOOLEAN, Rule::Tickets),
    ],
);

pub static ROUTE: Table = Table::new("a route", &[object("match", &MATCH), member("action", OBJECT, Rule::Action)]);

pub static MATCH: Table = Table::new(
    "\"match\"",
    &[
        member("method", STRING | ARRAY, Rule::Patterns),
        member("scheme", STRING, Rule::Scheme),
        member("host", STRING | ARRAY, Rule::Patterns),
        member("source", STRING | ARRAY, Rule::Addresses),
        member("destination", STRING | ARRAY, Rule::Addresses),
        member("uri", STRING | ARRAY, Rule::EncodedPatterns),
        member("query", STRING | ARRAY, Rule::EncodedPatterns),
        member("arguments", OBJECT | ARRAY, Rule::EncodedSets),
        member("headers", OBJECT | ARRAY, Rule::PatternSets),
        member("cookies", OBJECT | ARRAY, Rule::PatternSets),
        member("if", STRING, Rule::Condition),
    ],
);

pub static ACTION_COMMON: Table = Table::new(
    "an action",
    &[plain("rewrite", STRING).template(), member("response_headers", OBJECT, Rule::ResponseHeaders)],
);

pub static PASS_ACTION: Table =
    Table::new("a \"pass\" action", &[member("pass", STRING, Rule::Pass).template()]).then(&ACTION_COMMON);

pub static RETURN_ACTION: Table = Table::new(
    "a \"return\" action",
    &[member("return", INTEGER, Rule::Within(0, 999)), plain("location", STRING).template()],
)
.then(&ACTION_COMMON);

pub static SHARE_ACTION: Table = Table::new(
    "a \"share\" action",
    &[
        member("share", STRING | ARRAY, Rule::Share),
        plain("index", STRING),
        member("types", STRING | ARRAY, Rule::Patterns),
        member("fallback", OBJECT, Rule::Action),
        plain("chroot", STRING).template(),
        plain("follow_symlinks", BOOLEAN),
        plain("traverse_mounts", BOOLEAN),
    ],
)
.then(&ACTION_COMMON);

pub static PROXY_ACTION: Table =
    Table::new("a \"proxy\" action", &[member("proxy", STRING, Rule::Proxy)]).then(&ACTION_COMMON);

pub static EXTERNAL: Table = Table::new(
    "an external application",
    &[member("executable", STRING, Rule::Path).required(), member("arguments", ARRAY, Rule::Arguments)],
)
.then(&COMMON);

pub static PYTHON_COMMON: Table = Table::new(
    "a Python application",
    &[
        member("home", STRING, Rule::Path),
        member("path", STRING | ARRAY, Rule::Strings),
        member("protocol", STRING, Rule::OneOf(&["wsgi", "asgi"])),
        member("threads", INTEGER, THREADS),
        member("thread_stack_size", INTEGER, Rule::StackSize),
    ],
)
.then(&COMMON);

/// An application with `targets`. It must not have the members that its targets have.
pub static PYTHON: Table = Table::new(
    "a Python application with \"targets\"",
    &[
        member("module", STRING, Rule::WithTargets),
        member("callable", STRING, Rule::WithTargets),
        member("factory", BOOLEAN, Rule::WithTargets),
        member("prefix", STRING, Rule::WithTargets),
        member("targets", OBJECT, Rule::Targets(&PYTHON_TARGET)),
    ],
)
.then(&PYTHON_COMMON);

const PYTHON_ENTRY: [Member; 4] = [
    plain("module", STRING).required(),
    plain("callable", STRING),
    plain("factory", BOOLEAN),
    member("prefix", STRING, Rule::Prefix),
];

pub static PYTHON_TARGET: Table = Table::new("a Python target", &PYTHON_ENTRY);

pub static PYTHON_NO_TARGETS: Table = Table::new("a Python application", &PYTHON_ENTRY).then(&PYTHON_COMMON);

pub static PHP: Table = Table::new(
    "a PHP application with \"targets\"",
    &[
        member("root", ANY, Rule::WithTargets),
        member("script", ANY, Rule::WithTargets),
        member("index", ANY, Rule::WithTargets),
        member("targets", OBJECT, Rule::Targets(&PHP_TARGET)),
    ],
)
.then(&PHP_COMMON);

pub static PHP_COMMON: Table = Table::new("a PHP application", &[object("options", &PHP_OPTIONS)]).then(&COMMON);

pub static PHP_OPTIONS: Table = Table::new(
    "\"options\"",
    &[plain("file", STRING), member("admin", OBJECT, Rule::Options), member("user", OBJECT, Rule::Options)],
);

const PHP_ENTRY: [Member; 3] =
    [member("root", STRING, Rule::Path).required(), member("script", STRING, Rule::Path), plain("index", STRING)];

pub static PHP_TARGET: Table = Table::new("a PHP target", &PHP_ENTRY);

pub static PHP_NO_TARGETS: Table = Table::new("a PHP application", &PHP_ENTRY).then(&PHP_COMMON);

pub static PERL: Table = Table::new(
    "a Perl application",
    &[
        member("script", STRING, Rule::Path).required(),
        member("threads", INTEGER, THREADS),
        member("thread_stack_size", INTEGER, Rule::StackSize),
    ],
)
.then(&COMMON);

pub static RUBY: Table = Table::new(
    "a Ruby application",
    &[member("script", STRING, Rule::Path).required(), member("threads", INTEGER, THREADS), plain("hooks", STRING)],
)
.then(&COMMON);

pub static JAVA: Table = Table::new(
    "a Java application",
    &[
        member("classpath", ARRAY, Rule::Arguments),
        member("webapp", STRING, Rule::Path).required(),
        member("options", ARRAY, Rule::Arguments),
        plain("unit_jars", STRING),
        member("threads", INTEGER, THREADS),
        member("thread_stack_size", INTEGER, Rule::StackSize),
    ],
)
.then(&COMMON);

pub static WASM: Table = Table::new(
    "a WebAssembly application",
    &[
        plain("module", STRING).required(),
        plain("request_handler", STRING).required(),
        plain("malloc_handler", STRING).required(),
        plain("free_handler", STRING).required(),
        plain("module_init_handler", STRING),
        plain("module_end_handler", STRING),
        plain("request_init_handler", STRING),
        plain("request_end_handler", STRING),
        plain("response_end_handler", STRING),
        object("access", &WASM_ACCESS),
    ],
)
.then(&COMMON);

pub static WASM_WC: Table =
    Table::new("a WebAssembly component", &[plain("component", STRING).required(), object("access", &WASM_ACCESS)])
        .then(&COMMON);

pub static WASM_ACCESS: Table = Table::new("\"access\"", &[plain("filesystem", ARRAY)]);

pub static COMMON: Table = Table::new(
    "an application",
    &[
        plain("type", STRING),
        object("limits", &LIMITS),
        member("processes", INTEGER | OBJECT, Rule::Processes),
        plain("user", STRING),
        plain("group", STRING),
        member("working_directory", STRING, Rule::Path),
        member("environment", OBJECT, Rule::Environment),
        object("isolation", &ISOLATION),
        plain("stdout", STRING),
        plain("stderr", STRING),
    ],
);

pub static LIMITS: Table =
    Table::new("\"limits\"", &[plain("timeout", INTEGER), plain("requests", INTEGER), plain("shm", INTEGER)]);

pub static PROCESSES: Table = Table::new(
    "\"processes\"",
    &[
        member("spare", INTEGER, Rule::Within(0, I32)),
        member("max", INTEGER, Rule::Within(1, I32)),
        member("idle_timeout", INTEGER, Rule::Within(0, I32 / 1000)),
    ],
);

pub static ISOLATION: Table = Table::new(
    "\"isolation\"",
    &[
        object("namespaces", &NAMESPACES),
        member("uidmap", ARRAY, Rule::IdMap),
        member("gidmap", ARRAY, Rule::IdMap),
        plain("rootfs", STRING),
        object("automount", &AUTOMOUNT),
        plain("new_privs", BOOLEAN),
        object("cgroup", &CGROUP),
    ],
);

pub static NAMESPACES: Table = Table::new(
    "\"namespaces\"",
    &[
        plain("credential", BOOLEAN),
        plain("pid", BOOLEAN),
        plain("network", BOOLEAN),
        plain("mount", BOOLEAN),
        plain("uname", BOOLEAN),
        plain("cgroup", BOOLEAN),
    ],
);

pub static AUTOMOUNT: Table =
    Table::new("\"automount\"", &[plain("language_deps", BOOLEAN), plain("tmpfs", BOOLEAN), plain("procfs", BOOLEAN)]);

pub static CGROUP: Table = Table::new("\"cgroup\"", &[member("path", STRING, Rule::Cgroup).required()]);

pub static ID_MAP: Table = Table::new(
    "a map of ids",
    &[plain("container", INTEGER).required(), plain("host", INTEGER).required(), plain("size", INTEGER).required()],
);

pub static UPSTREAM: Table = Table::new("an upstream", &[member("servers", OBJECT, Rule::Servers)]);

pub static SERVER: Table = Table::new("a server", &[member("weight", NUMBER, Rule::Weight)]);

pub static ACCESS_LOG: Table = Table::new(
    "\"access_log\"",
    &[plain("path", STRING), member("format", STRING | OBJECT, Rule::LogFormat), member("if", STRING, Rule::Condition)],
);

/// All tables, with their names in `config-members.json`, for hints about misplaced members and for tests.
pub static TABLES: [(&str, &Table); 47] = [
    ("root", &ROOT),
    ("setting", &SETTINGS),
    ("http", &HTTP),
    ("otel", &TELEMETRY),
    ("websocket", &WEBSOCKET),
    ("static", &STATIC),
    ("compression", &COMPRESSION),
    ("compressor", &COMPRESSOR),
    ("listener", &LISTENER),
    ("forwarded", &FORWARDED),
    ("client_ip", &CLIENT_IP),
    ("tls", &TLS),
    ("session", &SESSION),
    ("route", &ROUTE),
    ("match", &MATCH),
    ("action_common", &ACTION_COMMON),
    ("pass_action", &PASS_ACTION),
    ("return_action", &RETURN_ACTION),
    ("share_action", &SHARE_ACTION),
    ("proxy_action", &PROXY_ACTION),
    ("external", &EXTERNAL),
    ("python_common", &PYTHON_COMMON),
    ("python", &PYTHON),
    ("python_target", &PYTHON_TARGET),
    ("python_notargets", &PYTHON_NO_TARGETS),
    ("php", &PHP),
    ("php_common", &PHP_COMMON),
    ("php_options", &PHP_OPTIONS),
    ("php_target", &PHP_TARGET),
    ("php_notargets", &PHP_NO_TARGETS),
    ("perl", &PERL),
    ("ruby", &RUBY),
    ("java", &JAVA),
    ("wasm", &WASM),
    ("wasm_wc", &WASM_WC),
    ("wasm_access", &WASM_ACCESS),
    ("common", &COMMON),
    ("app_limits", &LIMITS),
    ("app_processes", &PROCESSES),
    ("app_isolation", &ISOLATION),
    ("app_namespaces", &NAMESPACES),
    ("app_automount", &AUTOMOUNT),
    ("app_cgroup", &CGROUP),
    ("app_procmap", &ID_MAP),
    ("upstream", &UPSTREAM),
    ("upstream_server", &SERVER),
    ("access_log", &ACCESS_LOG),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn members_types_and_flags_are_those_of_unit() {
        let text = include_str!("../../tests/fixtures/unit-contract/config-members.json");
        let listed: Value = serde_json::from_str(text).unwrap();
        let listed = listed["objects"].as_object().unwrap();
        assert_eq!(listed.len(), TABLES.len());
        let types = |member: &Value| {
            member["types"].as_array().unwrap().iter().fold(0, |all, name| {
                all | match name.as_str().unwrap() {
                    "boolean" => BOOLEAN,
                    "integer" => INTEGER,
                    "number" => NUMBER,
                    "string" => STRING,
                    "array" => ARRAY,
                    "object" => OBJECT,
                    "any_type" => ANY,
                    other => panic!("{other}"),
                }
            })
        };
        for (name, table) in TABLES {
            let object = &listed[name];
            let members: Vec<_> = object["members"].as_array().unwrap().iter().collect();
            let named =
                |list: &[&Value]| list.iter().map(|m| m["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
            assert_eq!(named(&members), table.members.iter().map(|m| m.name.to_owned()).collect::<Vec<_>>(), "{name}");
            for (listed, ours) in members.iter().zip(table.members) {
                // The list lacks the type of `hooks`, which is a string (`nxt_conf_validation.c`).
                let known = if ours.name == "hooks" { STRING } else { types(listed) };
                let flags = listed["flags"].as_str().unwrap_or_default();
                assert_eq!(known, ours.types, "{name}.{}", ours.name);
                assert_eq!(
                    (flags == "required", flags == "tstr"),
                    (ours.required, ours.template),
                    "{name}.{}",
                    ours.name
                );
            }
            let then = table.then.map(|then| TABLES.iter().find(|(_, table)| std::ptr::eq(*table, then)).unwrap().0);
            assert_eq!(object.pointer("/then/0").and_then(Value::as_str), then, "{name}");
        }
    }
}
