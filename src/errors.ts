/**
 * What can go wrong, in the words of gRPC.
 *
 * `StatusError` is the one error that a call can end with, on either side of the wire:
 * `grpc/status.ts` turns it into a wire status and back, `main.ts` into the exit code of the
 * process. Anything else that is thrown is a fault of ours.
 */

/** The canonical gRPC status codes. The numbers are the wire's. */
export const statusCodes = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

export type StatusCode = keyof typeof statusCodes;

export interface StatusErrorOptions {
  /** What the person at the terminal can do about it; never sent over the wire. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** A call that did not end with OK, or that must not. */
export class StatusError extends Error {
  override readonly name: string = "StatusError";
  readonly code: Exclude<StatusCode, "OK">;
  readonly hint: string | undefined;

  constructor(
    code: Exclude<StatusCode, "OK">,
    message: string,
    { hint, cause }: StatusErrorOptions = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.hint = hint;
  }
}

/**
 * The user's own input is wrong: a flag, a file, a line. The message names it and says what was
 * expected. It is raised before anything is sent. A wrong line of an input does not end the command: it is
 * refused, and costs no other line.
 */
export class UsageError extends StatusError {
  override readonly name = "UsageError";

  constructor(message: string, options: StatusErrorOptions = {}) {
    super("INVALID_ARGUMENT", message, options);
  }
}

/**
 * Whether the same call may succeed if it is made again later.
 *
 * CANCELLED belongs here although it sounds final: a server that is forced down resets its streams
 * with CANCEL, so a CANCELLED that we did not ask for means "the server went away".
 */
export function isTransient(error: unknown): boolean {
  return (
    error instanceof StatusError && (error.code === "UNAVAILABLE" || error.code === "CANCELLED")
  );
}

/** The message of whatever was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/**
 * The status code for an error of the operating system about a file. Only what a change of rights would
 * mend is PERMISSION_DENIED; a path that leads nowhere is FAILED_PRECONDITION.
 */
export function codeOfErrno(error: unknown): Exclude<StatusCode, "OK"> {
  switch ((error as NodeJS.ErrnoException).code) {
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return "PERMISSION_DENIED";
    case "ENOSPC":
    case "EDQUOT":
    case "EMFILE":
    case "ENFILE":
      return "RESOURCE_EXHAUSTED";
    case "EIO":
      return "UNAVAILABLE";
    default:
      return "FAILED_PRECONDITION";
  }
}
