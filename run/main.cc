#include "run/cli.h"

int main(int argc, char** argv) { return plumb::run::RunCli(argc, argv); }
