"""What a wasm plugin may import: WASI preview 1 and our `hotplug` module, name by name with their types.

`i` is i32 and `l` is i64, parameters before the colon and results behind it
(https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md).
"""

from __future__ import annotations

WASI = "wasi_snapshot_preview1"
HOTPLUG = "hotplug"

SIGNATURES: dict[tuple[str, str], str] = {
    (WASI, "args_get"): "ii:i",
    (WASI, "args_sizes_get"): "ii:i",
    (WASI, "environ_get"): "ii:i",
    (WASI, "environ_sizes_get"): "ii:i",
    (WASI, "clock_res_get"): "ii:i",
    (WASI, "clock_time_get"): "ili:i",
    (WASI, "fd_advise"): "illi:i",
    (WASI, "fd_allocate"): "ill:i",
    (WASI, "fd_close"): "i:i",
    (WASI, "fd_datasync"): "i:i",
    (WASI, "fd_fdstat_get"): "ii:i",
    (WASI, "fd_fdstat_set_flags"): "ii:i",
    (WASI, "fd_fdstat_set_rights"): "ill:i",
    (WASI, "fd_filestat_get"): "ii:i",
    (WASI, "fd_filestat_set_size"): "il:i",
    (WASI, "fd_filestat_set_times"): "illi:i",
    (WASI, "fd_pread"): "iiili:i",
    (WASI, "fd_prestat_get"): "ii:i",
    (WASI, "fd_prestat_dir_name"): "iii:i",
    (WASI, "fd_pwrite"): "iiili:i",
    (WASI, "fd_read"): "iiii:i",
    (WASI, "fd_readdir"): "iiili:i",
    (WASI, "fd_renumber"): "ii:i",
    (WASI, "fd_seek"): "ilii:i",
    (WASI, "fd_sync"): "i:i",
    (WASI, "fd_tell"): "ii:i",
    (WASI, "fd_write"): "iiii:i",
    (WASI, "path_create_directory"): "iii:i",
    (WASI, "path_filestat_get"): "iiiii:i",
    (WASI, "path_filestat_set_times"): "iiiilli:i",
    (WASI, "path_link"): "iiiiiii:i",
    (WASI, "path_open"): "iiiiillii:i",
    (WASI, "path_readlink"): "iiiiii:i",
    (WASI, "path_remove_directory"): "iii:i",
    (WASI, "path_rename"): "iiiiii:i",
    (WASI, "path_symlink"): "iiiii:i",
    (WASI, "path_unlink_file"): "iii:i",
    (WASI, "poll_oneoff"): "iiii:i",
    (WASI, "proc_exit"): "i:",
    (WASI, "proc_raise"): "i:i",
    (WASI, "sched_yield"): ":i",
    (WASI, "random_get"): "ii:i",
    (WASI, "sock_accept"): "iii:i",
    (WASI, "sock_recv"): "iiiiii:i",
    (WASI, "sock_send"): "iiiii:i",
    (WASI, "sock_shutdown"): "ii:i",
    (HOTPLUG, "http_request"): "ii:i",
    (HOTPLUG, "http_response"): "ii:i",
}
