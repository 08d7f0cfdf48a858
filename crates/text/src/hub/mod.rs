//! The Hugging Face hub: repositories brought into the cache that Python's libraries share.
//!
//! The cache has the layout of `huggingface_hub` (`models--org--name/{blobs,refs,snapshots}`), so a
//! model that Python has is found here and the other way round. A download lies in
//! `blobs/<etag>.incomplete` until it is whole and checked; it is taken up again where it stopped.
//! Only configuration, tokenizer and safetensors files are fetched: no pickled weights, ever.

mod cache;
mod client;
mod error;
mod pick;
mod repo;
mod settings;

use std::path::PathBuf;

pub use error::HubError;
pub use repo::{Kind, RepoId};
pub use settings::Settings;

use cache::RepoCache;
use client::Client;

/// What a download tells while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A file begins: its name, its place among all (from 1), how many there are, and its bytes.
    File {
        /// Path inside the repository.
        name: &'a str,
        /// Its place, from 1.
        number: usize,
        /// Files in all.
        of: usize,
        /// Its size in bytes.
        bytes: u64,
    },
    /// Bytes of the current file that are here by now.
    Bytes {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        of: u64,
    },
}

/// A repository on this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with the files.
    pub folder: PathBuf,
    /// The commit that they belong to.
    pub commit: String,
    /// Whether the network had any part in it.
    pub from_cache: bool,
}

/// Access to the hub and its cache.
#[derive(Debug, Clone)]
pub struct Hub {
    settings: Settings,
}

impl Hub {
    /// With explicit settings; [`Settings::from_env`] has those of the environment.
    pub fn new(settings: Settings) -> Self {
        Hub { settings }
    }

    /// Where the cache is, whether it may go online, and the like.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The names of a repository's files, as the hub lists them now.
    ///
    /// # Errors
    /// Like [`Hub::snapshot`]; offline there is nobody to ask.
    pub fn files(&self, repo: &RepoId) -> Result<Vec<String>, HubError> {
        if self.settings.offline {
            return Err(HubError::Offline { repo: repo.clone(), cache: self.settings.cache.clone() });
        }
        Ok(Client::new(&self.settings).listing(repo)?.files)
    }

    /// The files of a repository, fetched where they are not here yet.
    ///
    /// `below`: for a data set, only files in this folder. `progress` is called for every file and
    /// about once a mebibyte.
    ///
    /// # Errors
    /// What the hub refuses (with what to do about it), what it does not have, a broken network
    /// where the cache has no complete copy, a full disk.
    pub fn snapshot(
        &self,
        repo: &RepoId,
        below: Option<&str>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Snapshot, HubError> {
        let cache = RepoCache::new(&self.settings.cache, repo);
        let cached = cache.complete(repo, below);
        if let Some(found) = cached.as_ref().filter(|found| repo.revision() == found.commit) {
            return Ok(found.clone());
        }
        if self.settings.offline {
            return cached
                .ok_or_else(|| HubError::Offline { repo: repo.clone(), cache: self.settings.cache.clone() });
        }
        let client = Client::new(&self.settings);
        let listing = match client.listing(repo) {
            Err(HubError::Network { .. }) if cached.is_some() => return Ok(cached.expect("just seen")),
            listing => listing?,
        };
        self.fetch(&client, &cache, repo, below, listing, progress)
    }

    fn fetch(
        &self,
        client: &Client<'_>,
        cache: &RepoCache,
        repo: &RepoId,
        below: Option<&str>,
        listing: client::Listing,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Snapshot, HubError> {
        let mut wanted = pick::files(repo, &listing.files, below)?;
        cache.begin(&listing.commit, below)?;
        let mut number = 0;
        while number < wanted.len() {
            let name = wanted[number].clone();
            number += 1;
            let of = wanted.len();
            // A commit never changes, so a file of it that is here needs no question.
            if !cache.file(&listing.commit, &name).is_file() {
                let remote = client.head(repo, &listing.commit, &name)?;
                progress(Progress::File { name: &name, number, of, bytes: remote.bytes });
                cache.store(client, &remote, &listing.commit, &name, progress)?;
            }
            if name == pick::INDEX {
                let index = cache.file(&listing.commit, &name);
                wanted.extend(pick::shards(repo, &index, &listing.files)?);
            }
        }
        cache.end(repo.revision(), &listing.commit, below)?;
        Ok(Snapshot { folder: cache.snapshot(&listing.commit), commit: listing.commit, from_cache: false })
    }
}

#[cfg(test)]
mod tests;
