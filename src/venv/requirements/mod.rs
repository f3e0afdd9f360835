//! Requirements files: podstrap parses each file once, and each line has one meaning.
//!
//! [`line`] defines the meanings, [`policy`] the rules for files of a repository. [`flat`] writes what the engines read.

mod file;
mod flat;
mod line;
mod policy;
mod text;

pub(super) use self::file::{RequirementsFile, RequirementsReader, contents};
pub(super) use self::flat::{Flat, package};
pub(super) use self::line::{Meaning, Requirement, Subject, name_of};

/// Rendered lines parse to the same meanings.
#[cfg(any(test, fuzzing))]
fn holds(text: &str) {
    let read = file::lines(text, str::to_owned);
    let written: Vec<String> = read.iter().map(file::ParsedLine::render).collect();
    let again = file::lines(&(written.join("\n") + "\n"), str::to_owned);
    let meanings = |lines: &[file::ParsedLine]| {
        let unknown = |line: &file::ParsedLine| (line.meaning == Meaning::Unknown).then(|| line.text.clone());
        lines.iter().map(|line| (line.meaning.clone(), unknown(line))).collect::<Vec<_>>()
    };
    assert_eq!(meanings(&again), meanings(&read), "{written:?}");
    for line in &read {
        assert!(
            line.number > 0 && !line.text.is_empty() && !line.text.contains('\n') && line.text.trim() == line.text,
            "{line:?}"
        );
        match &line.meaning {
            Meaning::Include { location, .. } | Meaning::FindLinks(location) => {
                assert!(location.path().is_none_or(|path| line.text.contains(path)), "{line:?}");
            }
            Meaning::Requirement(found) => {
                assert!(found.path().is_none_or(|path| line.text.contains(path)), "{line:?}");
            }
            _ => {}
        }
        if let Meaning::Requirement(found) = &line.meaning
            && found.is_plain()
        {
            // What an engine gets has no include and no second line.
            let written = found.clone().common();
            assert!(written.is_plain() && !written.to_string().contains(['\n', '\r', '\\']), "{line:?}");
        }
    }
}

#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    if let Some(text) = text::decode(data) {
        holds(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_again_means_the_same() {
        let seeds = [
            "Flask[async] >=3,<4 ; python_version > '3' --hash=sha256:ab --hash sha256:cd -C k=v --odd x",
            "x @ git+https://h/x.git@v1#egg=x ; os_name=='posix'",
            "x @ file:///w/x.whl#sha256=ab",
            "./lib[dev]; a == 'b'",
            "-e ./lib[dev] --config-settings a=b",
            "-r 'my base.txt' --pre",
            "--no-index --find-links ./w",
            "-c \"constraints.txt\" # why",
            "a \\\n  --hash=sha256:ab # c \\\nb",
            "--index-url=https://h/simple\n--requi=x\n-r a\\",
        ];
        for text in seeds {
            holds(text);
        }
        // Pieces of the seeds in random order.
        let pieces: Vec<&str> = seeds.iter().flat_map(|text| text.split_inclusive([' ', '=', '\n', '@'])).collect();
        let odd = [
            "\\", "\\\n", "#", " #", "'", "\"", ";", " ; ", "[", "]", "\t", "\n", "\r", "\u{a0}", "\u{c}", "-", " -",
            "$", "@",
        ];
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let count = random.usize(1..8);
            let mut pick = || {
                if random.u8(0..3) == 0 { odd[random.usize(..odd.len())] } else { pieces[random.usize(..pieces.len())] }
            };
            let text: String = (0..count).map(|_| pick()).collect();
            holds(&text);
        }
    }
}
