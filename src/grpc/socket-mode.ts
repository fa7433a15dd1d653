/**
 * Who may connect to a unix socket: those who may write to its file. bind(2) makes the file with all
 * rights that the umask leaves, so the umask is what decides, and not a chmod after it, before which
 * anyone could connect.
 *
 * The umask belongs to the whole process. Node binds a unix socket within the same turn of the event
 * loop, so nothing that comes from outside is handled meanwhile. Two binds take turns, since each has to
 * put back the umask that it found.
 */

let lastBind: Promise<unknown> = Promise.resolve();

/** Runs `bind`, and the socket that it makes has this mode from its first moment. */
export function bindWithMode<T>(mode: number, bind: () => Promise<T>): Promise<T> {
  const bound = lastBind.then(async () => {
    const umask = process.umask(0o777 & ~mode);
    try {
      return await bind();
    } finally {
      process.umask(umask);
    }
  });
  lastBind = bound.catch(() => {});
  return bound;
}
