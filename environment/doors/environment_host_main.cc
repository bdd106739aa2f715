// The host as a binary of its own, for tests and for installations that want it without the rest of
// plumb.
#include "environment/doors/environment_host.h"

int main(int argc, char** argv) { return plumb::environment::EnvironmentHostMain(argc, argv); }
