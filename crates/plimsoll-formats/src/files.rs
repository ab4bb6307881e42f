//! Reading with limits, memory maps, hashes, and atomic writes.
//!
//! ```
//! use plimsoll_formats::files;
//!
//! # fn main() -> Result<(), plimsoll_formats::FileError> {
//! # let folder = tempfile::tempdir().unwrap();
//! let path = folder.path().join("notes.txt");
//! files::write_file(&path, b"one\n")?;
//! assert_eq!(files::read_text(&path)?, "one\n");
//! # Ok(())
//! # }
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest as _, Sha256};

use crate::error::{FileError, FileProblem};

/// A result of reading or writing a file.
type Result<T> = std::result::Result<T, FileError>;

/// Maximum size of a text file, in bytes; tokenizers have some tens of megabytes.
const MAX_TEXT_BYTES: u64 = 256 << 20;
/// Maximum size of a JSON configuration file, in bytes; most have a few kilobytes, more with a chat template.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The start of a Git LFS pointer file (git-lfs specification, version 1).
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Opens a regular file. A pipe is refused because opening it would wait for a writer, a device because it may have no
/// end.
///
/// # Errors
/// A file that cannot be opened, or that is not a regular file.
pub fn open(path: &Path) -> Result<File> {
    let metadata = fs::metadata(path).map_err(FileError::read(path))?;
    if metadata.is_file() {
        return File::open(path).map_err(FileError::read(path));
    }
    let found = if metadata.is_dir() { "it is a folder" } else { "it is a pipe, a device or the like" };
    Err(FileError::read(path)(io::Error::other(format!("not a regular file: {found}"))))
}

/// Maps a file into memory, for reading.
///
/// # Errors
/// As [`open`], or a file that cannot be mapped.
pub fn map(path: &Path) -> Result<Mmap> {
    let file = open(path)?;
    // SAFETY: the map is only read. As with all readers of mapped weights, nothing prevents another process from
    // truncating or changing the file. Bytes are validated after mapping, and only plain numbers are copied out of
    // them, so changed bytes give wrong numbers at worst.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(FileError::read(path))
}

/// Whether a file's bytes are a Git LFS pointer instead of the content.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS_POINTER)
}

/// The error of a text file that is a Git LFS pointer.
pub fn lfs_pointer() -> io::Error {
    io::Error::other("this is a Git LFS pointer, not the file itself: run `git lfs pull`")
}

/// Reads a text file of at most 256 MiB.
///
/// # Errors
/// A file that cannot be read, is not regular, is a Git LFS pointer, is too large or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    read_limited(path, MAX_TEXT_BYTES)
}

/// Reads a configuration file of at most 4 MiB.
///
/// # Errors
/// As [`read_text`].
pub fn read_config(path: &Path) -> Result<String> {
    read_limited(path, MAX_CONFIG_BYTES)
}

/// Reads a text file of at most `limit` bytes.
///
/// # Errors
/// As [`read_text`].
pub fn read_limited(path: &Path, limit: u64) -> Result<String> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(limit + 1).read_to_end(&mut bytes).map_err(FileError::read(path))?;
    if read as u64 > limit {
        let message = format!("larger than the limit of {limit} bytes for such a file");
        return Err(FileError::read(path)(io::Error::other(message)));
    }
    if is_lfs_pointer(&bytes) {
        return Err(FileError::read(path)(lfs_pointer()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let message = format!("not UTF-8 from byte {} on", error.utf8_error().valid_up_to());
        FileError::read(path)(io::Error::other(message))
    })
}

/// SHA-256 of a byte string, in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of one file, or of several files: then of the lines `<sha256> <file name>`, sorted by file name, as printed
/// by `sha256sum * | sha256sum`.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256_of_files(paths: &[PathBuf]) -> Result<String> {
    let digest = |path: &PathBuf| -> Result<String> {
        let mut hasher = Sha256::new();
        let mut file = open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).map_err(FileError::read(path))?;
            if read == 0 {
                return Ok(hex(&hasher.finalize()));
            }
            hasher.update(&buffer[..read]);
        }
    };
    if let [path] = paths {
        return digest(path);
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut paths = paths.to_vec();
    paths.sort_by_key(name);
    let mut lines = String::new();
    for path in &paths {
        lines.push_str(&format!("{}  {}\n", digest(path)?, name(path)));
    }
    Ok(sha256(lines.as_bytes()))
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file atomically: a temporary file in the same folder, then a rename. Creates missing folders.
///
/// # Errors
/// A file that cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = parent_of(path);
    let write = || -> io::Result<()> {
        fs::create_dir_all(parent)?;
        let mut file = tempfile::Builder::new().prefix(".plimsoll-").tempfile_in(parent)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        make_readable(file.path(), 0o644)?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(FileError::write(path))
}

/// Writes a folder atomically: `fill` writes into a temporary folder next to it, which is then renamed.
///
/// # Errors
/// An error of `fill`, a folder that exists already, or one that cannot be written.
pub fn write_folder<E: From<FileError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    if path.exists() {
        return Err(FileError { path: path.to_owned(), problem: FileProblem::Exists }.into());
    }
    let parent = parent_of(path);
    fs::create_dir_all(parent).map_err(FileError::write(parent))?;
    let folder = tempfile::Builder::new().prefix(".plimsoll-").tempdir_in(parent).map_err(FileError::write(path))?;
    fill(folder.path())?;
    make_readable(folder.path(), 0o755).map_err(FileError::write(path))?;
    let folder = folder.keep();
    fs::rename(&folder, path).map_err(|reason| {
        // The error of the rename is more useful than one of the clean-up.
        let _ = fs::remove_dir_all(&folder);
        FileError::write(path)(reason).into()
    })
}

/// Checks whether a folder can be created and written to. Leaves nothing there.
///
/// # Errors
/// The operating system's reason.
pub fn check_writable(folder: &Path) -> io::Result<()> {
    let existing = folder.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("."));
    if let Some(nearest) = folder.ancestors().find(|ancestor| fs::symlink_metadata(ancestor).is_ok())
        && !nearest.is_dir()
    {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is not a folder", nearest.display())));
    }
    tempfile::tempfile_in(existing).map(drop)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Sets the permissions of a result on Unix, because temporary files are private to their owner.
///
/// # Errors
/// The operating system's reason.
pub fn make_readable(path: &Path, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    #[cfg(not(unix))]
    let _ = (path, mode);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_files_hash_as_sha256sum_would() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, "one\n").unwrap();
        fs::write(&b, "two\n").unwrap();
        // printf 'one\n' > a; printf 'two\n' > b; sha256sum a; sha256sum a b | sha256sum
        let one = "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806";
        assert_eq!(sha256_of_files(std::slice::from_ref(&a)).unwrap(), one);
        assert_eq!(sha256_of_files(&[b.clone(), a.clone()]).unwrap(), sha256_of_files(&[a, b]).unwrap());
    }

    #[test]
    fn a_folder_that_could_not_be_filled_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out");
        let failed =
            write_folder(&target, |folder| Err(FileError { path: folder.to_owned(), problem: FileProblem::Exists }));
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_before_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_text(folder.path()).unwrap_err().to_string().contains("not a regular file: it is a folder"));
        #[cfg(unix)]
        {
            let pipe = folder.path().join("pipe");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            for error in [
                read_text(&pipe).unwrap_err(),
                map(&pipe).unwrap_err(),
                sha256_of_files(&[pipe]).unwrap_err(),
                read_text(Path::new("/dev/zero")).unwrap_err(),
            ] {
                assert!(error.to_string().contains("not a regular file: it is a pipe, a device"), "{error}");
            }
        }
    }

    #[test]
    fn large_texts_pointers_and_bad_utf8_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, vec![b' '; MAX_CONFIG_BYTES as usize + 1]).unwrap();
        assert!(read_config(&path).unwrap_err().to_string().contains("4194304 bytes"));
        assert!(read_text(&path).is_ok());
        fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4711\n").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("git lfs pull"));
        fs::write(&path, b"ab\xff").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("byte 2"));
    }

    #[test]
    fn an_existing_folder_is_not_touched() {
        let parent = tempfile::tempdir().unwrap();
        let refused = write_folder(parent.path(), |_| Ok::<_, FileError>(())).unwrap_err();
        assert!(matches!(refused.problem, FileProblem::Exists));
    }
}
