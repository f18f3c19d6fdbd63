"""What kind of drive a file lies on: a SQLite database must not lie on one that several machines share.

SQLite keeps its writers apart by file locks, and in WAL mode by memory that they share. Neither reaches
another machine, and network drives promise locks that they do not keep: the database is damaged silently.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from automed.errors import Fault, StudyError

_OF_SYSTEMS = (
    "nfs nfs3 nfs4 cifs smb smb2 smb3 smbfs smbnetfs afpfs ncp ncpfs afs openafs auristorfs coda "
    "webdav davfs davfs2"
)
_OF_CLUSTERS = (
    "lustre gpfs beegfs beegfs_nodev ceph ceph-fuse glusterfs pvfs2 orangefs panfs gfs gfs2 ocfs2 acfs "
    "wekafs quobyte mfs moosefs lizardfs seaweedfs juicefs objectivefs"
)
_OF_THE_CLOUD = "s3fs goofys gcsfuse blobfuse blobfuse2 rclone sshfs curlftpfs gvfsd-fuse"
_OF_THE_HOST = "9p vboxsf vmhgfs vmhgfs-fuse prl_fs"  # seen from a virtual machine
_NETWORK = frozenset(f"{_OF_SYSTEMS} {_OF_CLUSTERS} {_OF_THE_CLOUD} {_OF_THE_HOST}".split())
_FUSE = ("fuse.", "osxfuse.", "macfuse.")


@dataclass(frozen=True)
class Mount:
    """One line of the table of drives; of a `remote` one the system says that it is another machine's."""

    point: str
    kind: str
    remote: bool = False


def mounts() -> list[Mount]:
    """The drives of this machine, in the order in which they were mounted; needs no rights."""
    import psutil

    return [
        Mount(part.mountpoint, part.fstype, "remote" in part.opts.split(","))
        for part in psutil.disk_partitions(all=True)
    ]


def network_drive(path: Path, table: Iterable[Mount]) -> str:
    """The kind of network drive that a file lies, or would lie, on; empty for a local one.

    Args:
        path: need not exist yet.
        table: the drives; of two at one place the later one hides the other.
    """
    place = path.resolve()
    if str(place).startswith("\\\\"):
        return "a shared folder of Windows"
    found: Mount | None = None
    for mount in table:
        inside = place.is_relative_to(mount.point)
        if inside and (found is None or len(Path(mount.point).parts) >= len(Path(found.point).parts)):
            found = mount
    if found is None:
        return ""
    kind = found.kind.lower()
    for prefix in _FUSE:
        kind = kind.removeprefix(prefix)
    return found.kind or "remote" if found.remote or kind in _NETWORK else ""


def refuse_network_drive(file: Path) -> None:
    """See to it that a database lies on a disk of this machine.

    Raises:
        StudyError: it lies, or would lie, on a network drive.
    """
    there = file.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    with contextlib.suppress(OSError), os.scandir(there):
        pass  # has an automatic mount take place before the table is read
    kind = network_drive(file, mounts())
    if kind:
        fault = f"{file} is on a network drive ({kind}), where the locks of a database file do not hold"
        hint = "put the study on a disk of this machine, or keep it in PostgreSQL with --storage"
        raise StudyError(Fault(fault, hint=hint))
