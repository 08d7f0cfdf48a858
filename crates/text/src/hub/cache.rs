//! The cache on disk: blobs by checksum, snapshots that link to them, refs that name commits.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::client::{Client, Remote};
use super::{HubError, Kind, Progress, RepoId, Snapshot, pick};

/// How often a download that breaks off is taken up again before it is given up.
const ATTEMPTS: usize = 4;

/// Bytes between two calls of the progress function.
const STEP: usize = 1 << 20;

/// One repository's folder in the cache.
pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &RepoId) -> Self {
        let name = repo.folder_name();
        RepoCache { root: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// One file of a commit.
    pub(super) fn file(&self, commit: &str, name: &str) -> PathBuf {
        self.snapshot(commit).join(name)
    }

    /// The copy of the wanted revision, if all of it is here. A model is complete when its configuration
    /// and all its weights are; a data set when its folder is there and no download of it is marked
    /// as unfinished.
    pub(super) fn complete(&self, repo: &RepoId, below: Option<&str>) -> Option<Snapshot> {
        let revision = repo.revision();
        let named = fs::read_to_string(self.root.join("refs").join(revision)).ok();
        let commit = named.map(|text| text.trim().to_owned()).unwrap_or_else(|| revision.to_owned());
        let folder = self.snapshot(&commit);
        let whole = match repo.kind() {
            Kind::Model => whole_model(&folder),
            Kind::Dataset => {
                let there = below.map_or(folder.clone(), |b| folder.join(b)).is_dir();
                there && !self.unfinished(&commit, below).exists()
            }
        };
        whole.then_some(Snapshot { folder, commit, from_cache: true })
    }

    /// The mark of a download that has begun and not ended.
    fn unfinished(&self, commit: &str, below: Option<&str>) -> PathBuf {
        let part = below.unwrap_or_default().replace('/', "--");
        self.locks.join(format!("{commit}.{part}.unfinished"))
    }

    /// Mark a download as begun, so that half of a data set is never taken for the whole.
    pub(super) fn begin(&self, commit: &str, below: Option<&str>) -> Result<(), HubError> {
        write_whole(&self.unfinished(commit, below), b"")
    }

    /// The download has ended well.
    pub(super) fn end(&self, revision: &str, commit: &str, below: Option<&str>) -> Result<(), HubError> {
        self.write_ref(revision, commit)?;
        // Another process may have ended the same download and taken the mark away.
        let _ = fs::remove_file(self.unfinished(commit, below));
        Ok(())
    }

    /// Have a file of a commit here: its blob fetched if need be, and the link to it.
    pub(super) fn store(
        &self,
        client: &Client<'_>,
        remote: &Remote,
        commit: &str,
        name: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let blob = self.root.join("blobs").join(&remote.etag);
        // Another process may be fetching the same file: whoever has the lock fetches, the other finds it.
        let _lock = self.lock(&remote.etag)?;
        if !blob.is_file() {
            self.download(client, remote, &blob, progress)?;
        }
        link(&blob, &self.file(commit, name), name)
    }

    fn lock(&self, etag: &str) -> Result<File, HubError> {
        fs::create_dir_all(&self.locks).map_err(|e| HubError::io(&self.locks, e))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::create(&path).map_err(|e| HubError::io(&path, e))?;
        file.lock().map_err(|e| HubError::io(&path, e))?;
        Ok(file)
    }

    fn download(
        &self,
        client: &Client<'_>,
        remote: &Remote,
        blob: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let blobs = self.root.join("blobs");
        fs::create_dir_all(&blobs).map_err(|e| HubError::io(&blobs, e))?;
        let part = blobs.join(format!("{}.incomplete", remote.etag));
        let mut attempt = 1;
        loop {
            match append(client, remote, &part, progress) {
                Err(HubError::Network { .. }) if attempt < ATTEMPTS => attempt += 1,
                other => break other?,
            }
        }
        if let Err(damaged) = check(remote, &part) {
            let _ = fs::remove_file(&part);
            return Err(damaged);
        }
        fs::rename(&part, blob).map_err(|e| HubError::io(blob, e))
    }

    /// Note which commit a revision is.
    fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        write_whole(&path, commit.as_bytes())
    }
}

/// Fetch what is missing of a file, after what is there already.
fn append(
    client: &Client<'_>,
    remote: &Remote,
    part: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), HubError> {
    let have = fs::metadata(part).map_or(0, |m| m.len());
    if have == remote.bytes {
        return Ok(());
    }
    let from = if have < remote.bytes { have } else { 0 };
    let (mut body, starts_at) = client.get(&remote.url, from)?;
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(starts_at == 0)
        .append(starts_at > 0)
        .open(part)
        .map_err(|e| HubError::io(part, e))?;
    let mut done = starts_at;
    let mut buffer = vec![0; STEP];
    while done < remote.bytes {
        let n = match body.read(&mut buffer) {
            Ok(n) if n > 0 => n,
            ended => {
                let cause = ended.err().map_or(String::new(), |e| format!(" ({e})"));
                let why = format!("the connection ended after {done} of {} bytes{cause}", remote.bytes);
                return Err(HubError::Network { url: remote.url.clone(), why });
            }
        };
        file.write_all(&buffer[..n]).map_err(|e| HubError::io(part, e))?;
        done += n as u64;
        progress(Progress::Bytes { done: done.min(remote.bytes), of: remote.bytes });
    }
    file.sync_all().map_err(|e| HubError::io(part, e))
}

/// Size, and the checksum where the etag is one (it is, for large files).
fn check(remote: &Remote, part: &Path) -> Result<(), HubError> {
    let damaged = |got: String, wanted: String| HubError::Damaged { url: remote.url.clone(), got, wanted };
    let size = fs::metadata(part).map_err(|e| HubError::io(part, e))?.len();
    if size != remote.bytes {
        return Err(damaged(format!("{size} bytes"), format!("{} bytes", remote.bytes)));
    }
    if remote.etag.len() != 64 {
        return Ok(());
    }
    let sum = sha256(part).map_err(|e| HubError::io(part, e))?;
    if sum == remote.etag {
        Ok(())
    } else {
        Err(damaged(format!("sha256 {sum}"), format!("sha256 {}", remote.etag)))
    }
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; STEP];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => sum.update(&buffer[..n]),
        }
    }
}

/// Configuration and every file of the weights.
fn whole_model(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    let adapter = has("adapter_model.safetensors") || has("adapter.safetensors");
    if has("adapter_config.json") && adapter {
        return true;
    }
    let sharded = || {
        let names = pick::shard_names(&folder.join(pick::INDEX));
        names.is_ok_and(|names| !names.is_empty() && names.iter().all(|name| has(name)))
    };
    has("config.json") && (has("model.safetensors") || sharded())
}

/// A link from the snapshot to the blob: relative, so that the cache can be moved.
fn link(blob: &Path, at: &Path, name: &str) -> Result<(), HubError> {
    if at.exists() {
        return Ok(());
    }
    let folder = at.parent().unwrap_or(at);
    fs::create_dir_all(folder).map_err(|e| HubError::io(folder, e))?;
    let _ = fs::remove_file(at); // a link whose blob is gone
    #[cfg(unix)]
    {
        let up = "../".repeat(2 + name.matches('/').count());
        let target = format!("{up}blobs/{}", blob.file_name().unwrap_or_default().to_string_lossy());
        match std::os::unix::fs::symlink(target, at) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            done => done.map_err(|e| HubError::io(at, e)),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = name;
        fs::copy(blob, at).map(|_| ()).map_err(|e| HubError::io(at, e))
    }
}

/// Write a small file so that it is never seen half written.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|e| HubError::io(folder, e))?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&part, bytes).map_err(|e| HubError::io(&part, e))?;
    fs::rename(&part, path).map_err(|e| HubError::io(path, e))
}
