// SPDX-License-Identifier: MIT OR Apache-2.0
//! How programs in the namespace reach the machine: a line of JSON each way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::machine::{Machine, Operation};
use crate::model::Errno;
use crate::world;

/// The variable that names the socket.
pub const VARIABLE: &str = "SIMHOST";
/// Where it is, for programs whose environment was cleared.
pub const SOCKET: &str = "/run/simhost/socket";

/// What can be asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Let what is blocked go on, with one device or all.
    Release(Option<String>),
    /// Let this go wrong too.
    Fault(String),
    /// Let nothing go wrong any more, and let what is blocked go on.
    Mend,
    /// The state.
    State,
    /// What was done so far.
    Journal,
    /// What is blocked.
    Blocked,
    /// Note that a modprobe has begun; answers with its number.
    Begin {
        /// Its arguments.
        arguments: String,
        /// Its process.
        pid: u32,
    },
    /// Note its exit status.
    End {
        /// Its number.
        number: usize,
        /// The status.
        status: u8,
    },
    /// Insert one module.
    Insert(String),
    /// Remove one module.
    Remove(String),
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Ok(Value),
    /// The kernel refused: the error's name.
    Errno(String),
    /// The request was wrong.
    Error(String),
}

/// Serves requests until the process ends.
pub fn serve(machine: Arc<Machine>, state: impl Fn() -> Value + Send + Sync + 'static) -> Result<()> {
    let listener = UnixListener::bind(SOCKET).context(SOCKET)?;
    let state = Arc::new(state);
    thread::spawn(move || {
        for stream in listener.incoming().filter_map(std::result::Result::ok) {
            let (machine, state) = (machine.clone(), state.clone());
            thread::spawn(move || {
                // Who has gone needs no answer.
                let peer = getsockopt(&stream, PeerCredentials).map_or(0, |peer| peer.pid() as u32);
                let _ = converse(&stream, |request| answer(&machine, &*state, request, peer));
            });
        }
    });
    Ok(())
}

fn converse(stream: &UnixStream, answer: impl Fn(Request) -> Answer) -> Result<()> {
    for line in BufReader::new(stream).lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(request) => answer(request),
            Err(error) => Answer::Error(error.to_string()),
        };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        let mut stream = stream;
        stream.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn answer(machine: &Machine, state: &dyn Fn() -> Value, request: Request, peer: u32) -> Answer {
    let done = |result: crate::model::Result<()>| match result {
        Ok(()) => Answer::Ok(Value::Null),
        Err(errno) => Answer::Errno(errno.to_string()),
    };
    let places = |places: Vec<crate::model::Place>| Answer::Ok(places.iter().map(ToString::to_string).collect());
    match request {
        Request::Release(address) => match address.map(|address| address.parse()).transpose() {
            Ok(address) => places(machine.release(address)),
            Err(error) => Answer::Error(error),
        },
        Request::Fault(text) => match text.parse() {
            Ok(fault) => {
                machine.add_fault(fault);
                Answer::Ok(Value::Null)
            }
            Err(error) => Answer::Error(error),
        },
        Request::Mend => places(machine.mend()),
        Request::State => Answer::Ok(state()),
        Request::Journal => Answer::Ok(json!(machine.journal())),
        Request::Blocked => places(machine.blocked()),
        Request::Begin { arguments, pid } => {
            // What a journal should say is who started it.
            let operation = Operation::new("modprobe", arguments.as_bytes(), world::parent(pid).unwrap_or(pid));
            Answer::Ok(json!(machine.begin(operation)))
        }
        Request::End { number, status } => {
            machine.end(number, status.into(), None);
            Answer::Ok(Value::Null)
        }
        Request::Insert(module) => done(machine.insert_module(&module, peer)),
        Request::Remove(module) => done(machine.remove_module(&module, peer)),
    }
}

/// A program's connection to the machine.
pub struct Client(UnixStream);

impl Client {
    /// Connects to the machine that this process is on.
    pub fn connect() -> Result<Self> {
        let path = std::env::var_os(VARIABLE).map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
        let stream = UnixStream::connect(&path);
        let outside = || format!("{}: not on a simulated host (start it by simhost run)", path.display());
        stream.map(Self).with_context(outside)
    }

    /// Asks and waits for the answer; the inner error is the kernel's.
    pub fn ask(&self, request: &Request) -> Result<std::result::Result<Value, Errno>> {
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        (&self.0).write_all(text.as_bytes()).context("simhost does not listen")?;
        let mut line = String::new();
        BufReader::new(&self.0).read_line(&mut line).context("simhost does not answer")?;
        match serde_json::from_str(&line).context("simhost is gone")? {
            Answer::Ok(value) => Ok(Ok(value)),
            Answer::Errno(name) => Ok(Err(name.parse().map_err(|error: String| anyhow!(error))?)),
            Answer::Error(reason) => Err(anyhow!(reason)),
        }
    }
}
