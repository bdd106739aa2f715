// The inside of a host: its command line, its pipes, and how it becomes a program.
//
// Purpose: what the hosts of reward functions and of environments have in common. They run behind
// the namespaces of common/sandbox/host_command.h and hold themselves to the limits before anything
// foreign is loaded. Thread safety: called once, by a host's main. Ownership: `rest` points into
// argv. Errors: ParseHostCall says what is wrong; ReadAll and WriteAll are false at the pipe's end.
#pragma once

#include <string>
#include <vector>

#include "common/base/problem.h"
#include "common/sandbox/sandbox.h"

namespace plumb {

struct HostCall {
  SandboxOptions sandbox;
  std::string object, program;  // exactly one of them
  std::vector<char*> rest;      // arguments of the object or program
};

Problem ParseHostCall(int argc, char** argv, HostCall* out);

bool WriteAll(int fd, const std::string& bytes);
// Exactly `size` bytes.
bool ReadAll(int fd, size_t size, std::string* out);

// What an object's host talks over. What the object itself reads and writes goes elsewhere: its
// stdin is empty, its stdout is stderr. Below 0: they could not be made.
struct HostPipes {
  int in = -1, out = -1;
};
HostPipes TakeHostPipes();

// Limits and filter around the object that this process is about to load; why that cannot be.
Problem GuardObject(const SandboxOptions& sandbox);

// Limits, filter, then the program in this process's place; comes back only with an exit code.
int ExecuteProgram(HostCall& arguments);

// The main of a host that is called `name`: becomes the program, or calls `serve` with the object.
// Comes back only with an exit code of what could not begin.
int RunHost(int argc, char** argv, const char* name, int (*serve)(const HostCall&));

}  // namespace plumb
