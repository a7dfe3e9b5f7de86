/** An address as messages show it. Words that hold addresses are signed: a negative number is shown as its word is. */
export const hexAddress = (p: number): string => `0x${(p < 0 ? p >>> 0 : p).toString(16)}`;
