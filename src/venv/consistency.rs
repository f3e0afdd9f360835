//! Checks that the requirements of each package are installed: `pip check`, in every image and for the
//! Python that runs the app.

use std::collections::BTreeMap;
use std::str::FromStr;

use pep508_rs::pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, PackageName, Requirement, VersionOrUrl};

use super::app::App;
use super::installed::Installed;

/// Returns one sentence for each unmet requirement. Skips invalid requirements, as pip does.
pub(super) fn check(dists: &[Installed], app: &App) -> Vec<String> {
    let Some(markers) = environment(app) else {
        tracing::warn!("cannot check the requirements of the packages: Python {} is not a valid version", app.version);
        return Vec::new();
    };
    let have: BTreeMap<PackageName, &str> = dists
        .iter()
        .filter_map(|dist| Some((PackageName::from_str(&dist.name).ok()?, dist.version.as_str())))
        .collect();
    let mut problems = Vec::new();
    for dist in dists {
        let who = dist.shown();
        if let Some(wanted) = &dist.requires_python
            && let Ok(specifiers) = VersionSpecifiers::from_str(wanted)
            && !specifiers.contains(&markers.python_full_version().version)
        {
            problems.push(format!("{who} requires Python {wanted}, but the app has {}", app.version));
        }
        for text in &dist.requires {
            let requirement = match Requirement::<url::Url>::from_str(text) {
                Ok(requirement) => requirement,
                Err(error) => {
                    tracing::debug!("{who} has an invalid requirement: {}", error.message);
                    continue;
                }
            };
            if !requirement.evaluate_markers(&markers, &[]) {
                continue;
            }
            let specifiers = match &requirement.version_or_url {
                Some(VersionOrUrl::VersionSpecifier(specifiers)) => Some(specifiers),
                _ => None,
            };
            let wanted = format!(
                "{}{}",
                requirement.name,
                specifiers.map(|specifiers| specifiers.to_string().replace(", ", ",")).unwrap_or_default()
            );
            let Some(version) = have.get(&requirement.name) else {
                problems.push(format!("{who} requires {wanted}, which is not installed"));
                continue;
            };
            let Ok(number) = Version::from_str(version) else { continue };
            if specifiers.is_some_and(|specifiers| !specifiers.contains(&number)) {
                problems.push(format!("{who} requires {wanted}, but {version} is installed"));
            }
        }
    }
    problems
}

/// The values of markers. `None` if the version of the interpreter is invalid.
fn environment(app: &App) -> Option<MarkerEnvironment> {
    let get = |name: &str| app.markers.get(name).map_or("", String::as_str);
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: get("implementation_name"),
        implementation_version: get("implementation_version"),
        os_name: get("os_name"),
        platform_machine: get("platform_machine"),
        platform_python_implementation: get("platform_python_implementation"),
        platform_release: get("platform_release"),
        platform_system: get("platform_system"),
        platform_version: get("platform_version"),
        python_full_version: get("python_full_version"),
        python_version: get("python_version"),
        sys_platform: get("sys_platform"),
    })
    .ok()
}
