/**
 * Whether an HTTP status says nothing about a backup that was asked for: a timeout (408) or a proxy's word (502, 504), or a
 * success that is not the one the API promises. The engine may be writing.
 */
export function isUnsettled(status: number): boolean {
  return status < 300 || status === 408 || status === 502 || status === 504;
}
