//! The usual paths of the control socket. Add new ones here.

/// The paths that packages and images use.
///
/// The entrypoint of the Docker images (`pkg/docker/docker-entrypoint.sh`) and the deb packages of
/// nginx.org use the first, as does FreeUnit until its deb of 1.36. The RPM packages use a separate
/// directory, and Alpine uses /run. The list has each path below /run too: /var/run is usually a link
/// to it, but not in every image.
pub const SOCKETS: [&str; 6] = [
    "/var/run/control.unit.sock",
    "/run/control.unit.sock",
    "/var/run/unit/control.sock",
    "/run/unit/control.sock",
    "/var/run/control.freeunit.sock",
    "/run/control.freeunit.sock",
];
