//! The way to a provider, as the platform has set it up: address, certificates, credentials, limits.

use std::{collections::BTreeMap, path::PathBuf};

use reqwest::{RequestBuilder, Url};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::checks::{Response, told};

/// An answer longer than this is large.
const LARGE: usize = 1 << 20;
/// Whoever reads a large answer: one at a time. As numbers it takes some times as much memory as text, and a manifest
/// can ask for many.
static TURN: Semaphore = Semaphore::const_new(1);

/// An answer, and the turn of whoever reads a large one; kept until it has become numbers.
pub type Answer = (Response, Option<SemaphorePermit<'static>>);

/// Why there is no answer.
#[derive(Debug)]
pub enum Fault {
    /// It is longer than what is read of one.
    TooLong(String),
    /// Whatever else, in words.
    Away(String),
}

impl Fault {
    /// The same for people.
    pub fn told(self) -> String {
        match self {
            Self::TooLong(why) | Self::Away(why) => why,
        }
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Away(why)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    pub client: reqwest::Client,
    pub address: Url,
    pub bearer_token_file: Option<PathBuf>,
    pub headers: BTreeMap<String, String>,
    pub header_files: BTreeMap<String, PathBuf>,
    /// How old a sample is before it is counted: one that is being written is not there yet, and has the time at which
    /// its scrape began.
    pub settling_millis: i64,
}

impl Connection {
    /// Sends a request with the platform's headers, and reads so many bytes of the answer at most.
    ///
    /// # Errors
    /// Why there is no answer, or that it is longer.
    pub async fn exchange(&self, mut request: RequestBuilder, most: usize) -> Result<Answer, Fault> {
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        // Mounted Secrets: small files in memory, read each time, so that they may be rotated.
        for (name, file) in &self.header_files {
            request = request.header(name, secret(&format!("headerFiles.{name}"), file)?);
        }
        if let Some(file) = &self.bearer_token_file {
            request = request.bearer_auth(secret("bearerTokenFile", file)?);
        }
        let mut answer = request.send().await.map_err(|error| told(&error))?;
        let headers = answer
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
        let mut response = Response { status: answer.status().as_u16(), headers: headers.collect(), body: Vec::new() };
        let mut turn = None;
        while let Some(chunk) = answer.chunk().await.map_err(|error| told(&error))? {
            if response.body.len() + chunk.len() > most {
                return Err(Fault::TooLong(format!("the answer is longer than {} MiB: ask for less", most >> 20)));
            }
            if turn.is_none() && response.body.len() + chunk.len() > LARGE {
                turn = Some(TURN.acquire().await.map_err(|error| error.to_string())?);
            }
            response.body.extend_from_slice(&chunk);
        }
        Ok((response, turn))
    }
}

fn secret(field: &str, file: &PathBuf) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{field} {}: {error}", file.display()))?;
    match text.trim() {
        "" => Err(format!("{field} {}: the file is empty", file.display())),
        text => Ok(text.to_owned()),
    }
}
