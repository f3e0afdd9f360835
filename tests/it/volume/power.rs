//! Power cuts: the state of a disk at any moment of a run, mounted after another boot of the node. The next run
//! completes the volume.
//!
//! The disk is a file with an ext4 file system. At each cut another program forces the journal to the disk, which has no
//! contents of podstrap's files yet, and the file is copied: the worst that a disk can hold after a power cut.
//!
//! `PODSTRAP_TEST_SEED` chooses the times.

use std::fs;
use std::path::Path;

use fastrand::Rng;

use crate::support::namespaces::namespaced;
use crate::support::sandbox::Ran;
use crate::support::volume::{App, Before, Known, SETUPS, Setup, names, seed};

/// Cuts during a run, besides the one after its end.
const CUTS: u32 = 6;

/// `seconds` after the start of `run`, cuts the power: copies the disk to `cut-N`. Then waits for the end of the run,
/// does the same once more and prints its output.
const CUT: &str = r#"
cut() {
    # Every second time, podstrap's own records are on the disk already.
    [ $(($1 % 2)) = 1 ] || find "$volume/.podstrap" \( -name release.json -o -name files \) -exec sync {} + 2>/dev/null
    dd if=/dev/zero of="$volume/other-program" bs=1 count=1 conv=fsync 2>"$place/dd" || exit 91
    cp --sparse=always "$place/disk" "$place/cut-$1" || exit 92
}
truncate -s 128M "$place/disk" && mkfs.ext4 -q "$place/disk" && mkdir -p "$volume" || exit 93
# The journal reaches the disk only when it is forced to.
mount -o loop,commit=300,noatime "$place/disk" "$volume" && cp -a "$before/." "$volume" && sync -f "$volume" || exit 94
"$@" & run=$!
number=0
for seconds in $pauses; do sleep $seconds; cut $number; number=$((number + 1)); done
wait $run || exit 95
$after
cut $number"#;

/// Mounts the disk of a power cut after another boot, runs the command, and copies the volume.
const RESTART: &str = r#"
cat /proc/sys/kernel/random/uuid > "$place/boot" && mount --bind "$place/boot" /proc/sys/kernel/random/boot_id || exit 91
mkdir -p "$volume" && mount -o loop "$disk" "$volume" || exit 92
$spoil
"$@"; code=$?
rm -f "$volume/other-program"
rm -rf "$place/after" && cp -a "$volume" "$place/after" || exit 93
exit $code"#;

/// The disks of the power cuts in one run. `None` if such tests are skipped.
struct Cuts<'a> {
    app: &'a App,
    known: &'a Known,
    place: std::path::PathBuf,
}

impl<'a> Cuts<'a> {
    /// Runs `init`, durable or not, with a power cut after each pause in seconds and after its end.
    fn of(app: &'a App, known: &'a Known, durable: bool, pauses: &[f64], after: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can mount a disk");
            return None;
        }
        let cuts = Self { app, known, place: app.sandbox.path(&format!("power-{}", fastrand::u64(..))) };
        fs::create_dir_all(&cuts.place).unwrap();
        let pauses: Vec<_> = pauses.iter().map(|pause| format!("{pause:.3}")).collect();
        let script = CUT.replace("$pauses", &pauses.join(" ")).replace("$after", after);
        let ran = cuts.run(&script, durable, &cuts.place.join("disk"))?;
        assert_eq!(ran.code, Some(0), "{}", ran.raw);
        Some(cuts)
    }

    fn run(&self, script: &str, durable: bool, disk: &Path) -> Option<Ran> {
        let volume = self.place.join("volume");
        let mut command = self.app.run_of(self.known.setup, &volume);
        command.env("PODSTRAP_DURABLE", durable.to_string());
        let mut text = String::new();
        for (name, path) in
            [("place", self.place.as_path()), ("volume", &volume), ("before", &self.known.before), ("disk", disk)]
        {
            text += &format!("{name}='{}'\n", path.display());
        }
        Some(self.app.sandbox.run(&mut namespaced(&command, &(text + script))?))
    }

    /// Runs `init` after the power cut with this number, on another boot.
    fn restart(&self, number: u32, spoil: &str) -> Ran {
        let script = RESTART.replace("$spoil", spoil);
        let ran =
            self.run(&script, false, &self.place.join(format!("cut-{number}"))).expect("it was not skipped before");
        let after = self.place.join("after");
        let what = format!("{}, cut {number}, PODSTRAP_TEST_SEED={}: {}", self.known.setup, seed(), ran.raw);
        assert_eq!(ran.code, Some(0), "{what}");
        assert_eq!(self.known.seen(&after, &what), "new", "{what}");
        assert_eq!(names(&after.join(".podstrap/releases")).len(), 1, "{what}");
        assert!(names(&after.join(".podstrap/staging")).is_empty(), "{what}");
        ran
    }
}

#[test]
fn after_a_power_cut_at_any_moment_the_next_run_completes_the_volume() {
    let app = App::new();
    let mut rng = Rng::with_seed(seed());
    let mut rebuilt = 0;
    for setup in SETUPS.iter().filter(|setup| setup.engine == "uv") {
        let known = Known::new(&app, *setup);
        let took = known.took.as_secs_f64();
        let pauses: Vec<f64> = (0..CUTS).map(|_| 1.5 * took / f64::from(CUTS) * rng.f64()).collect();
        let Some(cuts) = Cuts::of(&app, &known, false, &pauses, "") else { return };
        for number in 0..=CUTS {
            let ran = cuts.restart(number, "");
            rebuilt += usize::from(ran.raw.contains("after a restart of the node"));
        }
    }
    assert!(rebuilt > 0, "no release lost the contents of a file");
}

#[test]
fn a_release_that_reached_the_disk_survives_the_power_cut() {
    let app = App::new();
    let known = Known::new(&app, Setup { engine: "uv", link: None, before: Before::Nothing });
    // podstrap itself, or the kernel in its own time.
    for (durable, after) in [(true, ""), (false, "sync -f \"$volume\"")] {
        let Some(cuts) = Cuts::of(&app, &known, durable, &[], after) else { return };
        let fetched = app.fetched();
        let ran = cuts.restart(0, "");
        assert!(ran.raw.contains("unchanged: "), "{}", ran.raw);
        assert_eq!(app.fetched(), fetched, "durable {durable}");
    }
}

/// Gives a file the state of a write that the power cut interrupted on ext4: its size, but blocks marked as unwritten.
const UNWRITTEN: &str = r#"
file=$(find "$volume/.podstrap/releases" -path '*/site-packages/*' -name '*.py' -size +1k | head -n 1)
size=$(stat -c %s "$file"); touch -r "$file" "$place/time"
truncate -s 0 "$file" && fallocate -l "$size" "$file" && touch -r "$place/time" "$file" && umount "$volume" || exit 94
mount -o loop "$disk" "$volume" && [ "$(stat -c %s "$file")" = "$size" ] || exit 95"#;

#[test]
fn a_file_of_the_right_size_whose_blocks_were_never_written_is_noticed() {
    let app = App::new();
    let known = Known::new(&app, Setup { engine: "uv", link: None, before: Before::Nothing });
    let Some(cuts) = Cuts::of(&app, &known, false, &[], "sync -f \"$volume\"") else { return };
    let ran = cuts.restart(0, UNWRITTEN);
    assert!(ran.raw.contains("has no contents after a restart of the node"), "{}", ran.raw);
}

#[test]
fn after_a_restart_of_the_node_the_changes_of_an_app_are_no_damage() {
    let app = App::new();
    let root = app.sandbox.path("volume");
    fs::create_dir(&root).unwrap();
    let init = || app.init("uv", "new", &root, Some("app"));
    app.ok(&mut init());
    let restart = |number: u32, durable: bool| {
        let boot = app.sandbox.write(&format!("boot-{number}"), "");
        let script = format!(
            "echo {number} > '{0}' && mount --bind '{0}' /proc/sys/kernel/random/boot_id && \"$@\"",
            boot.display()
        );
        let mut command = init();
        command.env("PODSTRAP_DURABLE", durable.to_string());
        let ran = app.sandbox.run(&mut namespaced(&command, &script)?);
        assert!(ran.code == Some(0) && ran.raw.contains("unchanged: "), "{}", ran.raw);
        Some(())
    };
    let change = |text: &str| {
        // The file system's times may be coarse.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(root.join("app/README.md"), text).unwrap();
    };
    change("longer than it was\n");
    let Some(()) = restart(1, false) else { return };
    // The same boot as before, which the first run has recorded.
    change("");
    restart(1, false);
    let record = || {
        names(&root.join(".podstrap/releases"))
            .iter()
            .any(|id| root.join(".podstrap/releases").join(id).join("boot").exists())
    };
    assert!(record());
    restart(2, true);
    assert!(!record(), "--durable has written the release to disk");
    restart(3, false);
}

#[test]
fn after_a_restart_of_the_node_a_full_volume_is_no_obstacle() {
    let app = App::new();
    let known = Known::new(&app, Setup { engine: "uv", link: None, before: Before::Nothing });
    let (volume, boot) = (app.sandbox.path("full"), app.sandbox.write("boot", "another\n"));
    fs::create_dir(&volume).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64m none '{0}' && cp -a '{1}/.' '{0}' && mount --bind '{2}' /proc/sys/kernel/random/boot_id \
         || exit 91; dd if=/dev/zero of='{0}/filler' bs=64k 2>/dev/null; \"$@\"",
        volume.display(),
        known.after.display(),
        boot.display()
    );
    let Some(mut command) = namespaced(&app.run_of(known.setup, &volume), &script) else { return };
    let ran = app.sandbox.run(&mut command);
    assert!(ran.code == Some(0) && ran.raw.contains("unchanged: "), "{}", ran.raw);
}
