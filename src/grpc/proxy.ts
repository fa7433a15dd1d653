/**
 * The HTTP proxy that the environment asks for. The variables are those that grpc-js documents, and they
 * are read here because grpc-js tells nobody whether it uses a proxy, so an error would name a server that
 * was never called, and because it takes `no_proxy` literally: with a space after a comma an entry matches
 * nothing, and after a comma at the end every host matches.
 */

import { BlockList, isIP } from "node:net";
import type { ChannelOptions } from "@grpc/grpc-js";

export interface HttpProxy {
  /** Its host and port, such as `proxy.example:3128`. */
  readonly address: string;
  /** The variable that names it, such as `http_proxy`. */
  readonly variable: string;
  /** The user name and password for it, as `user:password`. */
  readonly credentials: string | undefined;
}

/** The variables that may name a proxy; the first one that is set decides, as in grpc-js. */
const proxyVariables = ["grpc_proxy", "https_proxy", "http_proxy"] as const;

/** The variables that exempt hosts; the first one that is set decides, as in grpc-js. */
const exemptVariables = ["no_grpc_proxy", "no_proxy"] as const;

/**
 * Returns the proxy through which a connection to `host` goes, or undefined for a direct one. As in
 * grpc-js, a value that is not an `http://` URL asks for no proxy.
 */
export function proxyFor(host: string, env: NodeJS.ProcessEnv): HttpProxy | undefined {
  const variable = proxyVariables.find((name) => env[name]);
  const url = variable === undefined ? undefined : URL.parse(env[variable] ?? "");
  if (variable === undefined || url?.protocol !== "http:" || isExempt(host, env)) {
    return undefined;
  }
  const { hostname, port, username, password } = url;
  const credentials = [username, password].filter(Boolean).map(decodeURIComponent).join(":");
  return {
    // The URL's own default, since gRPC's would be 443.
    address: `${hostname}:${port || "80"}`,
    variable,
    credentials: credentials === "" ? undefined : credentials,
  };
}

/** Whether `no_proxy` has the host: itself, a domain that it ends with, its network, or `*`. */
function isExempt(host: string, env: NodeJS.ProcessEnv): boolean {
  const variable = exemptVariables.find((name) => env[name]);
  const entries = (variable === undefined ? "" : (env[variable] ?? "")).split(",");
  return entries
    .map((entry) => entry.trim())
    .some((entry) => entry !== "" && (entry === "*" || isWithin(host, entry)));
}

function isWithin(host: string, entry: string): boolean {
  const [network = "", prefix] = entry.split("/");
  const kind = isIP(host);
  if (prefix !== undefined && kind !== 0 && kind === isIP(network) && /^\d{1,3}$/.test(prefix)) {
    const family = kind === 4 ? "ipv4" : "ipv6";
    const known = new BlockList();
    known.addSubnet(network, Math.min(Number(prefix), kind === 4 ? 32 : 128), family);
    return known.check(host, family);
  }
  return host.toLowerCase().endsWith(entry.toLowerCase());
}

/** For a channel that uses no proxy, whatever the environment says. */
export const directOptions = { "grpc.enable_http_proxy": 0 } satisfies ChannelOptions;

/**
 * Returns what a channel to the proxy needs to be told, so that it goes on from there to `target`, and
 * what keeps grpc-js from looking for a proxy itself.
 */
export function proxyOptions(proxy: HttpProxy | undefined, target: string): ChannelOptions {
  return {
    ...directOptions,
    ...(proxy === undefined
      ? {}
      : { "grpc.http_connect_target": `dns:${target}`, "grpc.default_authority": target }),
    ...(proxy?.credentials === undefined ? {} : { "grpc.http_connect_creds": proxy.credentials }),
  };
}
