/**
 * Files that hold a shop's sales: only their owner may read them, whatever the umask is, and nobody can
 * have them written elsewhere by planting a link or a pipe under a name that brewctl is going to use.
 *
 * A new file is made with O_CREAT | O_EXCL, which follows no link and opens no pipe. A file that is to
 * take the place of another one is written under a random name first and then renamed.
 */

import { randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";

/** `private`: for the owner alone. `umask`: as the umask says, for what tells nothing of a shop. */
type FileMode = "private" | "umask";

const fileMode = 0o600;
const folderMode = 0o700;

/**
 * Makes the folder and those above it that are missing, for their owner alone. An old one stays as it is.
 *
 * Not by the `recursive` of node:fs, which tries for ever where a folder is there and a new one in it
 * is answered with ENOENT, as in /proc.
 */
export function makePrivateFolder(path: string): void {
  const parent = dirname(resolve(path));
  try {
    if (!makeOneFolder(path)) {
      return;
    }
  } catch (error) {
    if (errorCode(error) !== "ENOENT") {
      throw error;
    }
    makePrivateFolder(parent);
    if (!makeOneFolder(path)) {
      return;
    }
  }
  // A new folder lasts only when its name in its parent is on the disk.
  syncPath(parent);
}

/** Returns false if the folder is there already. Throws what node:fs throws, ENOENT without a parent. */
function makeOneFolder(path: string): boolean {
  try {
    mkdirSync(path, { mode: folderMode });
    return true;
  } catch (error) {
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
      return false;
    }
    throw error;
  }
}

/**
 * Makes an empty file for its owner alone. Returns false, with nothing changed, if the name is taken.
 *
 * When root makes it, `ownerOf` names a file or folder whose owner it gets: what is kept beside another
 * user's database must be that user's too. SQLite does the same with its log.
 */
export function makePrivateFile(
  path: string,
  { ownerOf }: { readonly ownerOf?: string | undefined } = {},
): boolean {
  try {
    const fd = openNew(path, "private");
    try {
      if (ownerOf !== undefined && process.geteuid?.() === 0) {
        const { uid, gid } = statSync(ownerOf);
        ignoringNoModes(() => fchownSync(fd, uid, gid));
      }
    } finally {
      closeSync(fd);
    }
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST") {
      return false;
    }
    throw error;
  }
}

/** Returns the descriptor of a new file that can be written. Throws EEXIST if the name is taken. */
function openNew(path: string, mode: FileMode): number {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const fd = openSync(path, flags, mode === "umask" ? 0o666 : fileMode);
  // A umask may have taken rights from the owner.
  if (mode === "private" && (fstatSync(fd).mode & 0o777) !== fileMode) {
    ignoringNoModes(() => fchmodSync(fd, fileMode));
  }
  return fd;
}

/**
 * Takes the rights of all others away from a database file and from what is kept beside it: the files
 * whose names begin with its own and a dash, and those that were set aside as damaged. Earlier versions
 * made them as the umask said. Files of another owner stay as they are.
 */
export function tightenDatabase(path: string): void {
  for (const place of new Set([resolve(path), realpathSync(path)])) {
    const name = basename(place);
    for (const entry of readdirSync(dirname(place))) {
      if (entry === name || entry.startsWith(`${name}-`) || entry.startsWith(`${name}.damaged-`)) {
        tighten(join(dirname(place), entry));
      }
    }
  }
}

/**
 * Takes the rights of all others away from a file of this user; anything else stays as it is.
 *
 * By its path and not by a descriptor: closing one would release the locks that SQLite holds on the file
 * for this process (POSIX, fcntl(2)).
 */
export function tighten(path: string): void {
  // What SQLite keeps beside the file comes and goes.
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there?.isFile() && there.uid === process.geteuid?.() && (there.mode & 0o077) !== 0) {
    ignoringNoModes(() => chmodSync(path, there.mode & fileMode));
  }
}

/** A file system that has no modes, or is mounted read-only, cannot do better; a file may have gone. */
function ignoringNoModes(act: () => void): void {
  try {
    act();
  } catch (error) {
    if (!["EPERM", "EROFS", "ENOTSUP", "ENOSYS", "ENOENT"].includes(errorCode(error) ?? "")) {
      throw error;
    }
  }
}

interface PendingOptions {
  readonly mode?: FileMode;
  /** False: `put` throws EEXIST, and changes nothing, if something has the name. */
  readonly overwrites?: boolean;
}

/** A file that is written under a random name and takes its own name only as a whole. */
export interface PendingFile extends Disposable {
  write(text: string): void;
  /** Returns when the file is on the disk and has its name, in place of one that had it. */
  put(): void;
}

/**
 * Opens a file that is to have this name. A link at the name is followed if this user made it, as a
 * deliberate one is, and refused otherwise. Dispose of it at the end: what was not put is removed.
 * Throws what node:fs throws.
 */
export function openPending(
  path: string,
  { mode = "private", overwrites = true }: PendingOptions = {},
): PendingFile {
  const target = targetOf(path);
  const temporary = `${target}.${randomBytes(6).toString("hex")}.partial`;
  const fd = openNew(temporary, mode);
  let isPut = false;
  return {
    write(text) {
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; ) {
        at += writeSync(fd, bytes, at);
      }
    },
    put() {
      fsyncSync(fd);
      if (overwrites) {
        renameSync(temporary, target);
      } else {
        renameToFreeName(temporary, target);
      }
      isPut = true;
      syncPath(dirname(resolve(target)));
    },
    [Symbol.dispose]() {
      closeSync(fd);
      if (!isPut) {
        rmSync(temporary, { force: true });
      }
    },
  };
}

/** Throws EEXIST if something has the name `to`. A link is made, since a rename would replace a file. */
function renameToFreeName(from: string, to: string): void {
  try {
    linkSync(from, to);
    rmSync(from);
  } catch (error) {
    // A file system without links, such as that of a USB stick: a file made in this moment is replaced.
    if (!["EPERM", "ENOTSUP", "ENOSYS"].includes(errorCode(error) ?? "") || isTaken(to)) {
      throw error;
    }
    renameSync(from, to);
  }
}

/** Returns whether anything has this name, be it a link to nothing. */
export function isTaken(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** As `openPending`, in one go. */
export function replaceFile(path: string, text: string, options?: PendingOptions): void {
  using file = openPending(path, options);
  file.write(text);
  file.put();
}

function targetOf(path: string): string {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (!there?.isSymbolicLink()) {
    return path;
  }
  if (there.uid !== process.geteuid?.()) {
    throw Object.assign(new Error("it is a link that another user has made"), { code: "EPERM" });
  }
  return existsSync(path) ? realpathSync(path) : path;
}

/**
 * Returns the text of a file that brewctl has written itself. Throws if a link or anything else than a
 * file has its name: nothing of ours is read from there, and a pipe would be waited for without end.
 */
export function readPrivateFile(path: string): string {
  if (!isPlainFile(path)) {
    throw new Error(`${path} is not a file`);
  }
  // It may be replaced in between.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}

/** Whether a file has this name, and not a link, a pipe or a folder. */
export function isPlainFile(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

/** Whether a symbolic link has this name. */
export function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
}

/** Whether the name is that of a link to nothing. */
export function isDanglingLink(path: string): boolean {
  return (
    lstatSync(path, { throwIfNoEntry: false }) !== undefined &&
    statSync(path, { throwIfNoEntry: false }) === undefined
  );
}

/** Returns when a file, or the names in a folder, are on the disk. */
export function syncPath(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function errorCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
