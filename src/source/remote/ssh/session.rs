//! Runs a program on a server. Above all `git-upload-pack`: its list of references, and one pack (gitprotocol-pack,
//! version 0). Every failure of a server becomes an [`Error`] here.

use std::fmt;
use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, Disconnect};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use crate::error::{Error, Result};
use crate::plan::Ssh;
use crate::retry::Deadline;
use crate::source::access::auth::Keys;
use crate::source::access::pace::Pace;
use crate::source::remote::answer::{self, MAX_LIST};
use crate::source::remote::pktline::{FLUSH, Framer, packet, payload};
use crate::source::remote::refs::{Refs, Unreadable};
use crate::source::remote::ssh::connection::{Connection, SAID, locked, lost, step};
use crate::source::remote::ssh::login::{first_lines, log_in};

/// The program for references and packs.
const UPLOAD_PACK: &str = "git-upload-pack";
/// The most bytes of another program's output.
const MAX_OUTPUT: usize = 64 << 10;
/// How long podstrap waits for a server to receive a goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// `git-upload-pack` on a server, which has sent its list and waits for a request. Dropped without one, it gets
/// a goodbye.
pub(crate) struct Session {
    command: Option<Command>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// A command on a server, and its result.
struct Command {
    program: &'static str,
    channel: Channel<Msg>,
    connection: Connection,
    /// The command's standard error.
    said: Vec<u8>,
    status: Option<u32>,
    signal: Option<String>,
}

/// Starts `git-upload-pack` for the repository and reads its list of references. Returns the list parsed, and in
/// the form of HTTP.
pub(crate) async fn list(ssh: &Ssh, keys: &Keys, deadline: Deadline) -> Result<(Session, Refs, Vec<u8>)> {
    let what = format!("cannot list the references of {ssh}");
    let mut command = Command::start(ssh, keys, UPLOAD_PACK, "", &what, deadline).await?;
    let mut body = [packet(b"# service=git-upload-pack\n"), FLUSH.to_vec()].concat();
    let (start, mut framer, mut pace) = (body.len(), Framer::default(), Pace::new(deadline));
    'list: while let Some(bytes) = command.chunk(&what, (body.len() - start) as u64, &mut pace).await? {
        framer.push(&bytes);
        body.extend_from_slice(&bytes);
        if body.len() > MAX_LIST {
            return Err(Error::source(what).because(format!("the list is longer than {MAX_LIST} bytes")));
        }
        loop {
            match framer.next() {
                Ok(Some(packet)) if payload(packet).is_none_or(|line| line.starts_with(b"ERR ")) => break 'list,
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    // A greeting, or a shell that runs no command. It may send more text.
                    let _ = timeout(FAREWELL, async {
                        while body.len() - start < SAID
                            && let Some(more) = command.chunk(&what, body.len() as u64, &mut pace).await?
                        {
                            body.extend_from_slice(&more);
                        }
                        Ok::<_, Error>(())
                    })
                    .await;
                    command.said.splice(0..0, body[start..].iter().copied().take(SAID));
                    let error = Error::source(&what).because("the server's answer does not follow Git's protocol");
                    return Err(command.quoted(error).hint("give the address for git clone, including the user"));
                }
            }
        }
    }
    match Refs::parse(&body) {
        Ok(refs) => Ok((Session { command: Some(command) }, refs, body)),
        Err(Unreadable::Truncated) => Err(command.ended(&what)),
        Err(error) => Err(command.quoted(Error::source(what).because(error))),
    }
}

/// Runs a program for the repository, with one more argument, and returns its output.
pub(crate) async fn output(
    ssh: &Ssh,
    keys: &Keys,
    program: &'static str,
    argument: &str,
    what: &str,
    deadline: Deadline,
) -> Result<Vec<u8>> {
    let mut command = Command::start(ssh, keys, program, &format!(" {argument}"), what, deadline).await?;
    let (mut output, mut pace) = (Vec::new(), Pace::new(deadline));
    while let Some(bytes) = command.chunk(what, output.len() as u64, &mut pace).await? {
        output.extend_from_slice(&bytes);
        if output.len() > MAX_OUTPUT {
            return Err(
                Error::source(what).because(format!("the answer of {program} is longer than {MAX_OUTPUT} bytes"))
            );
        }
    }
    let ended = command.ended(what);
    let done = command.status == Some(0);
    leave(command, false);
    if done { Ok(output) } else { Err(ended) }
}

impl Command {
    async fn start(
        ssh: &Ssh,
        keys: &Keys,
        program: &'static str,
        arguments: &str,
        what: &str,
        deadline: Deadline,
    ) -> Result<Self> {
        let connection = log_in(ssh, keys, deadline).await?;
        let line = ssh.command(program) + arguments;
        tracing::debug!("{}: {line}", ssh.known_as());
        let open = async {
            let channel = connection.handle.channel_open_session().await?;
            channel.exec(true, line).await?;
            Ok(channel)
        };
        let channel = step(what, deadline, open)
            .await
            .and_then(|done| done.map_err(|error| lost(ssh, what, error, &connection.heard)))?;
        Ok(Self { program, channel, connection, said: Vec::new(), status: None, signal: None })
    }

    /// The next bytes of the command's output, after `received` bytes; `None` at its end.
    async fn chunk(
        &mut self,
        what: &str,
        received: u64,
        pace: &mut Pace,
    ) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>> {
        loop {
            let Ok(message) = timeout_at(pace.until(), self.channel.wait()).await else {
                let error = pace.stalled(what).because(format!("{received} bytes of the answer had arrived"));
                return Err(self.quoted(error));
            };
            match message {
                Some(ChannelMsg::Data { data }) => {
                    pace.came(data.len());
                    return Ok(Some(data));
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    pace.came(data.len());
                    let room = SAID.saturating_sub(self.said.len());
                    self.said.extend_from_slice(&data[..data.len().min(room)]);
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => self.status = Some(exit_status),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => self.signal = Some(format!("{signal_name:?}")),
                Some(ChannelMsg::Failure) => {
                    let refused = format!("the server refuses to run {}", self.program);
                    return Err(self.quoted(Error::source(what).because(refused)));
                }
                Some(ChannelMsg::Close) | None => return Ok(None),
                Some(_) => {}
            }
        }
    }

    /// The error of a command that ended before its answer was complete.
    fn ended(&self, what: &str) -> Error {
        let (error, program) = (Error::source(what), self.program);
        if let Some(signal) = &self.signal {
            return self.quoted(error.because(format!("{program} was ended by SIG{signal}"))).transient(None);
        }
        match self.status {
            Some(127) => self.quoted(error.because(format!("the server has no {program} on its PATH"))),
            Some(status) => self
                .quoted(error.because(format!("{program} ended with exit status {status}")))
                .hint("check the path, and whether the key can read this repository"),
            None if !self.said.is_empty() => self.quoted(error.because(format!("{program} ended"))),
            None => {
                let farewell = locked(&self.connection.heard).farewell.take();
                let farewell = farewell.map(|text| format!(": {text}")).unwrap_or_default();
                error.because(format!("the server closed the connection{farewell}")).transient(None)
            }
        }
    }

    /// Adds the server's own words, if there are any.
    fn quoted(&self, error: Error) -> Error {
        let said = first_lines(&self.said);
        if said.is_empty() { error } else { error.excerpt(said) }
    }

    /// Tells the server that podstrap needs nothing more, and waits a moment for that to arrive.
    async fn end(mut self, unasked: bool) {
        let farewell = async {
            if unasked {
                // As a request, it asks for nothing (gitprotocol-pack, "Packfile Negotiation").
                self.channel.data_bytes(FLUSH).await?;
            }
            self.channel.eof().await?;
            if unasked {
                while self.channel.wait().await.is_some() {}
            }
            self.connection.handle.disconnect(Disconnect::ByApplication, "", "").await?;
            (&mut self.connection.handle).await
        };
        if !matches!(timeout(FAREWELL, farewell).await, Ok(Ok(()))) {
            tracing::trace!("the server did not end the connection in time");
        }
        drop(self.connection.socket);
    }
}

impl Session {
    /// Whether the server no longer answers.
    pub(crate) fn is_over(&self) -> bool {
        self.command.as_ref().is_none_or(|command| command.connection.is_over())
    }

    /// Requests a pack and passes the packets of the answer to `packets`, as [`answer::pass_on`] does. Returns
    /// the refusal of the server, if any.
    pub(crate) async fn upload_pack(
        mut self,
        what: &str,
        body: Vec<u8>,
        packets: mpsc::Sender<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<Option<String>> {
        let Some(mut command) = self.command.take() else { return Err(Error::internal("a session was used twice")) };
        let answered = command.ask(what, body, &packets, deadline).await;
        // End the packets now, without waiting for the goodbye.
        drop(packets);
        leave(command, false);
        answered
    }
}

impl Command {
    async fn ask(
        &mut self,
        what: &str,
        body: Vec<u8>,
        packets: &mpsc::Sender<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<Option<String>> {
        let pace = Pace::new(deadline);
        // A server that closes before it has read everything may still have sent a reason.
        if timeout_at(pace.until(), self.channel.data_bytes(body)).await.is_err() {
            return Err(self.quoted(pace.stalled(what)));
        }
        let answered = {
            let chunk = async |received, pace: &mut Pace| self.chunk(what, received, pace).await;
            answer::pass_on(what, chunk, str::to_owned, packets, deadline).await
        };
        answered.map_err(|error| self.quoted(error))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(command) = self.command.take() {
            leave(command, true);
        }
    }
}

/// Says goodbye to a server without waiting. Outside of a runtime, the connection just ends.
fn leave(command: Command, unasked: bool) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(command.end(unasked));
    }
}
