/** Where a server listens or is dialled: `localhost:50052`, `:50052`, `[::1]:50052`, `unix:/path`. */

export type Address =
  /** `host` is empty in `:50052`: all interfaces for a server, this machine for a client. */
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

const expected = "expected host:port, :port, [ipv6]:port or unix:/path";

/** `sun_path` of Linux holds 108 bytes with the closing zero, that of macOS 104. */
const maxSocketPathBytes = 103;

/** Throws a `RangeError` that says what was expected. Port 0 is for servers: any free port. */
export function parseAddress(text: string): Address {
  if (text.startsWith("unix:")) {
    // unix:///path is the URI spelling of unix:/path.
    const path = text.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
    if (path === "" || path.endsWith("/")) {
      throw new RangeError("expected the path of a socket after unix:");
    }
    if (Buffer.byteLength(path) > maxSocketPathBytes) {
      throw new RangeError(`expected a socket path of at most ${maxSocketPathBytes} bytes`);
    }
    return { kind: "unix", path };
  }
  const match = /^(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s:/[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new RangeError(match === null ? expected : "expected a port from 0 to 65535");
  }
  return { kind: "tcp", host: match[1] ?? match[2] ?? "", port };
}

/** As it is written on the command line; the inverse of `parseAddress`. */
export function formatAddress(address: Address): string {
  if (address.kind === "unix") {
    return `unix:${address.path}`;
  }
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

/** Whether traffic to this address stays on this machine. */
export function isLocal(address: Address): boolean {
  return address.kind === "unix" || /^(|localhost|127(\.\d{1,3}){3}|::1)$/i.test(address.host);
}
