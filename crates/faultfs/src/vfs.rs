//! The VFS that SQLite calls: it hands everything on to the one that was the default before, but for syncs of files that
//! are watched, and asks the watch first.
//!
//! A file of ours is a [`Shim`] with the inner VFS's own file right behind it, in memory that SQLite gives: `szOsFile` says
//! how much. Invariant: from a successful [`open`] to [`close`] the shim and the inner file are both initialized.
//!
//! The methods stop at version 2: without `xFetch` SQLite maps no database file into memory, so that each write is seen.
//! The index of the write-ahead log (`-shm`) is shared memory and no part of what a loss of power leaves.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use rusqlite::ffi::{
    self, SQLITE_IOERR, SQLITE_OK, SQLITE_OPEN_DELETEONCLOSE, sqlite3_file, sqlite3_filename, sqlite3_int64,
    sqlite3_io_methods, sqlite3_vfs,
};

use crate::fault::Operation;
use crate::watch::WatchedFile;

/// A file that SQLite has open.
#[repr(C)]
struct Shim {
    base: sqlite3_file,
    watched: Option<Box<WatchedFile>>,
}

/// The VFS that everything is handed on to.
struct Inner(*mut sqlite3_vfs);

// SAFETY: SQLite's own VFS is registered for as long as the process lives, is never written to once it is, and its
// methods may be called from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

static INNER: OnceLock<Inner> = OnceLock::new();

/// Makes this the default VFS of the process, once.
pub(crate) fn register() {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        // It is known before SQLite may call us, which it does from any thread once we are registered.
        // SAFETY: `sqlite3_vfs_find` may be called at any time; with no name it gives the default VFS.
        let inner = INNER.get_or_init(|| Inner(unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) })).0;
        assert!(!inner.is_null(), "SQLite has no default VFS");
        // SAFETY: the inner VFS is there for as long as the process lives. The copy of it that is registered is leaked, so
        // it is there as long; it keeps the inner one's `pAppData`, and those methods of SQLite's that are not replaced do
        // not look at which VFS they are called with.
        let code = unsafe {
            let mut ours = inner.read();
            ours.szOsFile += size_of_shim();
            ours.pNext = null_mut();
            ours.zName = c"runledger-faultfs".as_ptr();
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1)
        };
        assert_eq!(code, SQLITE_OK, "the VFS is registered");
    });
}

fn size_of_shim() -> c_int {
    // Two pointers, so that the file behind it is aligned as SQLite aligns any.
    const { assert!(size_of::<Shim>().is_multiple_of(8)) };
    c_int::try_from(size_of::<Shim>()).unwrap_or_default()
}

fn inner_vfs() -> *mut sqlite3_vfs {
    // Never null: it was found before ours was registered.
    INNER.get().map_or(null_mut(), |inner| inner.0)
}

/// The inner VFS's file.
///
/// # Safety
/// `file` is one that SQLite allocated for our VFS.
unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: `szOsFile` is the sizes of both, so the second one lies within the allocation.
    unsafe { file.cast::<Shim>().add(1).cast() }
}

/// What is watched of an open file.
///
/// # Safety
/// `file` was opened by [`open`] and not closed yet; SQLite uses a file from one thread at a time.
unsafe fn watched<'a>(file: *mut sqlite3_file) -> Option<&'a WatchedFile> {
    // SAFETY: `open` has initialized the shim; nothing but `close` changes it.
    unsafe { (*file.cast::<Shim>()).watched.as_deref() }
}

/// Hands a call on to the same method of the inner file.
macro_rules! pass {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls with a file that `open` opened, so the inner one is open too, with its methods set; the
        // arguments are SQLite's own.
        unsafe {
            let inner = inner($file);
            match (*(*inner).pMethods).$method {
                Some(method) => method(inner $(, $argument)*),
                None => SQLITE_IOERR,
            }
        }
    }};
}

/// Hands a call on, unless it is to fail.
macro_rules! pass_unless_it_fails {
    ($operation:expr, $file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls with a file that `open` opened.
        match unsafe { watched($file) }.and_then(|watched| watched.strikes($operation)) {
            Some(code) => code,
            None => pass!($file, $method $(, $argument)*),
        }
    }};
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(take_lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The path as text, if it has a name and is text.
///
/// # Safety
/// `name` is null or a C string that outlives `'a`.
unsafe fn text<'a>(name: *const c_char) -> Option<&'a str> {
    // SAFETY: as promised.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }).and_then(|name| name.to_str().ok())
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a name that is null or a C string, and `szOsFile` writable bytes at `file`.
    unsafe {
        // Until it is open: SQLite closes no file without methods.
        file.cast::<Shim>().write(Shim { base: sqlite3_file { pMethods: std::ptr::null() }, watched: None });
        let path = text(name);
        let watched = path.filter(|_| flags & SQLITE_OPEN_DELETEONCLOSE == 0).and_then(WatchedFile::of);
        if let Some(code) = watched.as_ref().and_then(|watched| watched.strikes(Operation::Open)) {
            return code;
        }
        let was_there = path.is_some_and(|path| std::path::Path::new(path).exists());
        let Some(inner_open) = (*inner_vfs()).xOpen else {
            return SQLITE_IOERR;
        };
        let inner = inner(file);
        (*inner).pMethods = std::ptr::null();
        let code = inner_open(inner_vfs(), name, inner, flags, out_flags);
        if code != SQLITE_OK {
            if let Some(close) = (*inner).pMethods.as_ref().and_then(|methods| methods.xClose) {
                close(inner);
            }
            return code;
        }
        if let Some(watched) = &watched {
            watched.opened(|| was_there.then(|| content(inner)));
        }
        file.cast::<Shim>().write(Shim { base: sqlite3_file { pMethods: &METHODS }, watched: watched.map(Box::new) });
        SQLITE_OK
    }
}

/// The bytes of a file, read by its own handle: closing another one would give up the process's locks.
///
/// # Safety
/// `inner` is an open file of the inner VFS.
unsafe fn content(inner: *mut sqlite3_file) -> Vec<u8> {
    let mut length: sqlite3_int64 = 0;
    // SAFETY: the methods of an open file are set; the buffer has as many bytes as are asked for.
    unsafe {
        let (Some(file_size), Some(read)) = ((*(*inner).pMethods).xFileSize, (*(*inner).pMethods).xRead) else {
            return Vec::new();
        };
        assert_eq!(file_size(inner, &mut length), SQLITE_OK, "a file that was just opened has a length");
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let count = c_int::try_from(bytes.len()).unwrap_or_default();
        if count > 0 {
            assert_eq!(
                read(inner, bytes.as_mut_ptr().cast(), count, 0),
                SQLITE_OK,
                "a file that was just opened is read"
            );
        }
        bytes
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite gives a C string, and the inner VFS takes it.
    let hand_on = || unsafe {
        match (*inner_vfs()).xDelete {
            Some(delete) => delete(inner_vfs(), name, sync_folder),
            None => SQLITE_IOERR,
        }
    };
    // SAFETY: SQLite gives a C string.
    match unsafe { text(name) }.and_then(WatchedFile::of) {
        Some(watched) => watched.delete(sync_folder != 0, hand_on),
        None => hand_on(),
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let code = pass!(file, xClose);
    // SAFETY: `open` has initialized the shim, and SQLite does not use a file after it closed it.
    unsafe { file.cast::<Shim>().drop_in_place() };
    code
}

unsafe extern "C" fn read(file: *mut sqlite3_file, to: *mut c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    pass_unless_it_fails!(Operation::Read, file, xRead, to, count, offset)
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with a file that `open` opened.
    let Some(watched) = (unsafe { watched(file) }) else {
        return pass!(file, xWrite, from, count, offset);
    };
    // SAFETY: SQLite gives `count` readable bytes at `from`, more than none.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(count).unwrap_or_default()) };
    watched.write(u64::try_from(offset).unwrap_or_default(), bytes, |part| {
        // No more than `count`, which is one.
        let count = c_int::try_from(part.len()).unwrap_or_default();
        pass!(file, xWrite, part.as_ptr().cast(), count, offset)
    })
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with a file that `open` opened.
    match unsafe { watched(file) } {
        Some(watched) => watched.truncate(u64::try_from(length).unwrap_or_default(), || pass!(file, xTruncate, length)),
        None => pass!(file, xTruncate, length),
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite calls with a file that `open` opened.
    match unsafe { watched(file) } {
        Some(watched) => watched.sync(),
        None => pass!(file, xSync, flags),
    }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, length: *mut sqlite3_int64) -> c_int {
    pass_unless_it_fails!(Operation::Length, file, xFileSize, length)
}

unsafe extern "C" fn take_lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass_unless_it_fails!(Operation::Lock, file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, is_locked: *mut c_int) -> c_int {
    pass!(file, xCheckReservedLock, is_locked)
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    pass!(file, xFileControl, what, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    may_extend: c_int,
    memory: *mut *mut c_void,
) -> c_int {
    pass_unless_it_fails!(Operation::SharedMemory, file, xShmMap, region, size, may_extend, memory)
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // Giving a lock up does not fail.
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        return pass!(file, xShmLock, offset, count, flags);
    }
    pass_unless_it_fails!(Operation::SharedLock, file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: SQLite calls with a file that `open` opened.
    unsafe {
        let inner = inner(file);
        if let Some(barrier) = (*(*inner).pMethods).xShmBarrier {
            barrier(inner);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    pass!(file, xShmUnmap, delete)
}
