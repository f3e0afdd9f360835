//! The usual places of the control socket. Another one is added here.

/// Where the packages and images put the control socket.
///
/// The Docker images' entrypoint (`pkg/docker/docker-entrypoint.sh`) and the deb packages of
/// nginx.org use the first, those of FreeUnit as well until its deb of 1.36; the RPM packages have
/// a directory of their own, and Alpine uses /run. Each is tried below /run too: /var/run is mostly
/// a link to it, but not in every image.
pub const SOCKETS: [&str; 6] = [
    "/var/run/control.unit.sock",
    "/run/control.unit.sock",
    "/var/run/unit/control.sock",
    "/run/unit/control.sock",
    "/var/run/control.freeunit.sock",
    "/run/control.freeunit.sock",
];
