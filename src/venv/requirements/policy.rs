//! Rules for the files of a repository, applied to the parser's result: a repository must not read other mounted
//! files, and --only-binary must not build.

use std::path::{Component, Path};

use super::file::ParsedLine;
use super::line::{Location, Meaning};
use crate::error::Result;
use crate::files;

/// Whether a repository may include `path`, which leads to `target`. An engine's errors would show the lines of the
/// file, so it must be in the tree. A variable of the Pod may name another file: `-c ${PINS}`.
pub(super) fn may_include(
    line: &ParsedLine,
    path: &str,
    target: &Path,
    tree: &Path,
    expand: impl Fn(&str) -> String,
) -> Result<bool> {
    let of_pod = line.unexpanded_parts().into_iter().any(|part| match Meaning::of(&part) {
        Meaning::Include { location: Location::Path { path: written, .. }, .. } => {
            of_the_pod(&written) && expand(&written) == path
        }
        _ => false,
    });
    // Nothing is read from a missing file.
    let inside = match (files::real(target)?, files::real(tree)?) {
        (Some(target), Some(tree)) => target.starts_with(tree),
        _ => true,
    };
    Ok(of_pod || inside && stays(target, tree) && !path.contains("${"))
}

/// Whether an engine builds a package for this line, whatever the settings say.
pub(super) fn asks_for_builds(line: &ParsedLine) -> bool {
    match &line.meaning {
        Meaning::Editable(_) | Meaning::Option { name: "--no-binary", .. } => true,
        Meaning::Requirement(found) => found.options.iter().any(|(name, _)| name == "--no-binary"),
        _ => false,
    }
}

/// Whether a requirement has a hash. If one has, pip requires one for all.
pub(super) fn has_hash(line: &ParsedLine) -> bool {
    matches!(&line.meaning, Meaning::Requirement(found) | Meaning::Editable(found) if found.has_hash())
}

/// Whether no component of a path leaves `tree`, without following links.
fn stays(path: &Path, tree: &Path) -> bool {
    let mut depth = 0_usize;
    path.strip_prefix(tree).is_ok_and(|below| {
        below.components().all(|part| match part {
            Component::ParentDir => {
                let inside = depth > 0;
                depth = depth.saturating_sub(1);
                inside
            }
            Component::CurDir => true,
            _ => {
                depth += 1;
                true
            }
        })
    })
}

/// Whether a path is one variable whose name is for versions. Other variables may name secrets.
fn of_the_pod(path: &str) -> bool {
    let name = path.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| {
        name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && ["PINS", "CONSTRAINT", "REQUIREMENT"].iter().any(|word| name.contains(word))
    })
}
