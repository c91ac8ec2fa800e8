// The number of the setns system call, which the standard library does not name.

package main

const sysSetns = 308
