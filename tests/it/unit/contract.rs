//! Compares the fake, podstrap and a real Unit with every recorded exchange.

use std::path::Path;
use std::time::Duration;

use podstrap::config::dialect;
use podstrap::config::position::without_bom;
use podstrap::plan::Control;
use podstrap::retry::Deadline;

use super::real::Place;
use crate::support::fake_unit::{Asked, Behaviour, CASES, Came, Case, FakeUnit, NOT_REPLAYED, Recorded, ask, shown};
use crate::support::sandbox::Sandbox;
use crate::support::unit::{client, run, setup};

/// The number of cases, of 207, that the fake answers.
const REPLAYED: usize = 193;

fn without_date(mut came: Came) -> Came {
    if let Came::Response(Recorded { headers, .. }) = &mut came {
        for (name, value) in headers {
            if name == "Date" {
                value.clear();
            }
        }
    }
    came
}

/// Sends the case to a fresh server and describes the differences.
fn differs(socket: &Path, case: &Case) -> Option<String> {
    for step in &case.setup {
        match ask(socket, &Case::step(step), Duration::from_secs(10)) {
            Came::Response(response) if response.status == 200 => {}
            other => return Some(format!("set-up: {other:?}")),
        }
    }
    let patience = if case.connection_end == "timeout" { 300 } else { 10_000 };
    let answer = without_date(ask(socket, case, Duration::from_millis(patience)));
    let expected = match &case.response {
        Some(response) => without_date(Came::Response(response.clone())),
        None if case.connection_end == "timeout" => Came::Silence,
        None => Came::Nothing,
    };
    if answer != expected {
        return Some(format!("{answer:?}\n  recorded: {expected:?}"));
    }
    let after = shown(socket);
    (case.after.is_some() && after != case.after).then(|| format!("afterwards {after:?}\n  recorded: {:?}", case.after))
}

#[test]
fn the_fake_answers_as_recorded() {
    assert_eq!(CASES.len(), REPLAYED);
    assert_eq!(CASES.len() + NOT_REPLAYED.len(), 207, "a name in NOT_REPLAYED is misspelt");
    let sandbox = Sandbox::new();
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let sandbox = &sandbox;
        // In parallel, because some cases consist of waiting.
        let parts: Vec<_> = CASES
            .chunks(CASES.len().div_ceil(4))
            .map(|part| {
                scope.spawn(move || {
                    let failed = |case: &'static Case| {
                        let socket = sandbox.path(&case.name);
                        let fake =
                            FakeUnit::with(&socket, Behaviour { like: Some(&case.name), ..Behaviour::default() });
                        let differs = differs(&socket, case);
                        assert_eq!(fake.unknown(), [], "{}", case.name);
                        differs.map(|what| format!("{}: {what}", case.name))
                    };
                    part.iter().filter_map(failed).collect::<Vec<_>>()
                })
            })
            .collect();
        failures.extend(parts.into_iter().flat_map(|part| part.join().unwrap()));
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The cases that podstrap can cause: a PUT of /config with a body on a fresh Unit.
fn applied() -> impl Iterator<Item = (&'static Case, &'static [u8])> {
    CASES.iter().filter_map(|case| {
        let asked = case.asked.as_ref()?;
        let ours =
            asked.method == "PUT" && asked.path == "/config" && case.setup.is_empty() && case.group != "protocol";
        ours.then_some((case, asked.body.as_slice()))
    })
}

#[test]
fn podstrap_understands_every_recorded_answer() {
    let sandbox = Sandbox::new();
    let mut counts = [0; 4];
    for (case, body) in applied() {
        let socket = sandbox.path("socket");
        let _fake = FakeUnit::with(&socket, Behaviour { like: Some(&case.name), ..Behaviour::default() });
        let config = setup(body);
        let result = run(client(&sandbox).apply(
            Some(&Control::Unix(socket)),
            &config,
            Deadline::after(Duration::from_secs(20)),
        ));
        let response = case.response.as_ref().expect("such a PUT is answered");
        let name = &case.name;
        let reply: serde_json::Value = serde_json::from_str(&response.body).unwrap();
        let Err(error) = result else {
            assert_eq!(response.status, 200, "{name}");
            assert_eq!(result.unwrap().server, "Unit/1.35.0");
            counts[0] += 1;
            continue;
        };
        assert_ne!(response.status, 200, "{name}: {error}");
        assert_eq!(error.kind().exit_code(), 7, "{name}");
        let text = error.to_string();
        if let Some(place) = reply.get("location") {
            assert!(text.contains(&format!("unit.json:{}:{}: invalid JSON", place["line"], place["column"])), "{text}");
            caret_is_right(&text, body, usize::try_from(place["offset"].as_u64().unwrap()).unwrap());
            counts[1] += 1;
        } else if let Some(detail) = reply.get("detail") {
            assert!(text.contains(detail.as_str().unwrap()), "{name}: {text}");
            counts[2] += 1;
        } else {
            assert!(text.contains("Failed to apply") && text.contains("kubectl logs"), "{name}: {text}");
            counts[3] += 1;
        }
    }
    // Applied, bad JSON, bad configuration, failed to apply.
    assert_eq!(counts, [23, 21, 32, 20]);
}

/// Asserts that the caret points to the character at Unit's offset.
fn caret_is_right(text: &str, body: &[u8], offset: usize) {
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  | ")).collect();
    let (line, below) = match lines[..] {
        [line, below] => (line, below),
        [below] => ("", below),
        _ => panic!("{text}"),
    };
    let Ok(body) = std::str::from_utf8(without_bom(body)) else { return };
    let expected = body[offset..].chars().next().filter(|c| *c != '\n');
    assert_eq!(line.chars().nth(below.chars().count() - 1), expected, "{text}");
}

#[test]
fn what_unit_shows_is_what_was_sent() {
    let mut compared = 0;
    for (case, body) in applied().filter(|(case, _)| case.response.as_ref().is_some_and(|r| r.status == 200)) {
        let (Ok(sent), Some(after)) = (dialect::to_value(body), &case.after) else {
            // Unit accepts invalid UTF-8.
            assert_eq!(case.name, "put-invalid-utf8-in-string");
            continue;
        };
        assert!(dialect::same(&sent, &dialect::to_value(after.as_bytes()).unwrap()), "{}", case.name);
        compared += 1;
    }
    assert_eq!(compared, 22);
}

#[test]
fn what_unit_refuses_as_json_podstrap_refuses_too() {
    let mut refused = 0;
    for (case, body) in
        applied().filter(|(case, _)| case.response.as_ref().is_some_and(|r| r.body.contains("Invalid JSON")))
    {
        assert!(dialect::to_value(body).is_err(), "{}", case.name);
        refused += 1;
    }
    assert_eq!(refused, 21);
}

/// Cases whose answer depends on the machine: applications and their users, addresses in use, the modules'
/// directory. The test tells the fake; for a real Unit it would have to set up all of it.
fn needs_circumstances(case: &Case) -> bool {
    let app = |asked: &Asked| String::from_utf8_lossy(&asked.body).contains("/app");
    let starts = case.response.as_ref().is_some_and(|response| response.status != 400);
    let lib = case.response.as_ref().is_some_and(|response| response.body.contains("\"lib\""));
    lib || case.group == "apply" || case.setup.iter().any(app) || (starts && case.asked.as_ref().is_some_and(app))
}

#[test]
#[ignore = "needs a real unitd: set PODSTRAP_TEST_UNITD and run with --ignored"]
fn a_real_unit_answers_as_recorded() {
    if super::real::is_freeunit() {
        println!("SKIPPED: the answers are NGINX Unit's; FreeUnit adds locations");
        return;
    }
    let (mut failures, mut asked) = (Vec::new(), 0);
    for case in CASES.iter().filter(|case| !needs_circumstances(case)) {
        let place = Place::new();
        let _unitd = place.started();
        asked += 1;
        if let Some(what) = differs(&place.socket(), case) {
            failures.push(format!("{}: {what}", case.name));
        }
    }
    println!("{asked} cases");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(asked, 148);
}
