/** Which remote addresses are one and the same peer. */

/** What counts as one peer; undefined for a unix socket, or where the socket is closed already. */
export function peerAddress(remoteAddress: string | undefined): string | undefined {
  if (remoteAddress === undefined || !remoteAddress.includes(":")) {
    return remoteAddress;
  }
  const [mapped] = /\d+\.\d+\.\d+\.\d+$/.exec(remoteAddress) ?? [];
  if (mapped !== undefined) {
    return mapped;
  }
  const [head = "", tail] = remoteAddress.replace(/%.*$/, "").split("::");
  const groups = (text: string) => (text === "" ? [] : text.split(":"));
  const before = groups(head);
  const after = groups(tail ?? "");
  const zeros = Array(Math.max(0, 8 - before.length - after.length)).fill("0");
  const prefix = [...before, ...zeros, ...after].slice(0, 4).join(":");
  return prefix === "0:0:0:0" ? remoteAddress : `${prefix}::/64`;
}
