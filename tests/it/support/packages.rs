//! Generated packages: wheels, source distributions, and projects whose build needs no dependency and records
//! that it ran.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use sha2::{Digest, Sha256};

/// Writes `NAME-VERSION-py3-none-any.whl` with one module of that name and these Requires-Dist lines.
pub(crate) fn wheel(dir: &Path, name: &str, version: &str, requires: &[&str]) -> PathBuf {
    wheel_with(dir, name, version, requires, &[])
}

/// The same with more files. `INFO` and `DATA` stand for the directories of metadata and data.
pub(crate) fn wheel_with(dir: &Path, name: &str, version: &str, requires: &[&str], more: &[(&str, &str)]) -> PathBuf {
    let info = format!("{name}-{version}.dist-info");
    let mut metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    for requirement in requires {
        if let Some((_, extra)) = requirement.split_once("extra == '") {
            writeln!(metadata, "Provides-Extra: {}", extra.trim_end_matches('\'')).expect("a string");
        }
        writeln!(metadata, "Requires-Dist: {requirement}").expect("a string");
    }
    let tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let mut files = vec![
        (format!("{name}.py"), format!("version = '{version}'\n")),
        (format!("{info}/METADATA"), metadata),
        (format!("{info}/WHEEL"), tags.to_owned()),
    ];
    let data = format!("{name}-{version}.data");
    for (file, text) in more {
        let file = match file.split_once('/') {
            Some(("INFO", rest)) => format!("{info}/{rest}"),
            Some(("DATA", rest)) => format!("{data}/{rest}"),
            _ => (*file).to_owned(),
        };
        files.retain(|(name, _)| *name != file);
        files.push((file, (*text).to_owned()));
    }
    let mut record = String::new();
    for (file, text) in &files {
        let digest = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(text));
        writeln!(record, "{file},sha256={digest},{}", text.len()).expect("a string");
    }
    writeln!(record, "{info}/RECORD,,").expect("a string");
    fs::create_dir_all(dir).expect("the sandbox is writable");
    let path = dir.join(format!("{name}-{version}-py3-none-any.whl"));
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).expect("the sandbox is writable"));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (file, text) in files.iter().chain([&(format!("{info}/RECORD"), record)]) {
        archive.start_file(file, options).expect("a good name");
        archive.write_all(text.as_bytes()).expect("the sandbox is writable");
    }
    archive.finish().expect("the sandbox is writable");
    path
}

/// The files of a project with an in-tree backend (PEP 517, PEP 660), which writes to `mark` whenever its code
/// runs. `more` is the rest of the `[project]` table and any further tables.
pub(crate) fn project(name: &str, mark: &Path, more: &str) -> Vec<(String, String)> {
    let pyproject = format!(
        "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n\
         [project]\nname = \"{name}\"\nversion = \"1.0\"\n{more}\n"
    );
    let backend = BACKEND.replace("MARK", mark.to_str().expect("UTF-8")).replace("NAME", name);
    let pkg_info = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    [
        ("pyproject.toml", pyproject),
        ("backend.py", backend),
        (&*format!("{name}.py"), "answer = 42\n".to_owned()),
        ("PKG-INFO", pkg_info),
    ]
    .map(|(file, text)| (file.to_owned(), text))
    .to_vec()
}

const BACKEND: &str = r#"
import os, zipfile

with open("MARK", "a") as mark:
    mark.write("NAME ")

try:
    import tomllib
except ImportError:
    tomllib = None


def lines():
    if tomllib is None:
        return ""
    with open("pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    text = "".join("Requires-Dist: %s\n" % line for line in project.get("dependencies", ()))
    for extra, requirements in project.get("optional-dependencies", {}).items():
        text += "Provides-Extra: %s\n" % extra
        text += "".join("Requires-Dist: %s ; extra == '%s'\n" % (line, extra) for line in requirements)
    return text


def write(directory, files):
    name = "NAME-1.0-py3-none-any.whl"
    info = "NAME-1.0.dist-info"
    files = dict(files)
    files[info + "/METADATA"] = "Metadata-Version: 2.1\nName: NAME\nVersion: 1.0\n" + lines()
    files[info + "/WHEEL"] = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[info + "/RECORD"] = "".join("%s,,\n" % file for file in list(files) + [info + "/RECORD"])
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return name


def build_wheel(directory, settings=None, metadata=None):
    return write(directory, {"NAME.py": "answer = 42\n"})


def build_editable(directory, settings=None, metadata=None):
    return write(directory, {"NAME.pth": os.getcwd() + "\n"})
"#;

/// Writes such a project as `NAME-1.0.tar.gz`.
pub(crate) fn sdist(dir: &Path, name: &str, mark: &Path) -> PathBuf {
    fs::create_dir_all(dir).expect("the sandbox is writable");
    let path = dir.join(format!("{name}-1.0.tar.gz"));
    let file = fs::File::create(&path).expect("the sandbox is writable");
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    for (file, text) in project(name, mark, "") {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("{name}-1.0/{file}"), text.as_bytes()).expect("a good name");
    }
    archive.into_inner().and_then(flate2::write::GzEncoder::finish).expect("the sandbox is writable");
    path
}

/// The hash of a file, as `sha256:…`.
pub(crate) fn sha256(file: &Path) -> String {
    let digest = Sha256::digest(fs::read(file).expect("readable"));
    digest.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}
