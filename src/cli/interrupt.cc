#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "cli/terminal.h"

namespace tandem::cli {
namespace {

constexpr int kExitInterrupted = 130;
constexpr std::array<int, 2> kSignals = {SIGINT, SIGTERM};

volatile std::sig_atomic_t g_interrupted = 0;
volatile std::sig_atomic_t g_terminated = 0;

void on_signal(int number) {
  if (g_interrupted != 0) {
    restore_terminal();
    ::_exit(kExitInterrupted);
  }
  g_interrupted = 1;
  if (number == SIGTERM) g_terminated = 1;
}

}  // namespace

InterruptGuard::InterruptGuard() {
  g_interrupted = 0;
  g_terminated = 0;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  for (const int number : kSignals) ::sigaction(number, &action, nullptr);
}

InterruptGuard::~InterruptGuard() {
  for (const int number : kSignals) std::signal(number, SIG_DFL);
}

bool InterruptGuard::interrupted() {
  return g_interrupted != 0;
}

bool InterruptGuard::terminated() {
  return g_terminated != 0;
}

void InterruptGuard::clear() {
  g_interrupted = g_terminated;
}

}  // namespace tandem::cli
