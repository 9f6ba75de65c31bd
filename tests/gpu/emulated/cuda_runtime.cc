// The CUDA runtime of the emulated device. A stream is a queue: what is launched runs some launches
// later, and all of it when the host waits. So host memory that is written, or device memory that
// is freed, before a launch is done with it gives wrong answers, as it would on a GPU.
#include <cstdlib>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "tests/gpu/emulated/device.h"

namespace tandem::emulated {
namespace {

using Kernel = std::function<void()>;

struct FakeGraph {
  std::vector<Kernel> kernels;
  int num_waiting = 0;  // launches that have not ended
};

struct FakeStream {
  explicit FakeStream(uint64_t seed) : lag(seed) {}

  void push(Kernel kernel) {
    pending.push_back(std::move(kernel));
    ++num_queued;
  }
  void run_until(uint64_t end) {
    while (num_run < end && !pending.empty()) {
      const Kernel kernel = std::move(pending.front());
      pending.pop_front();
      ++num_run;
      kernel();
    }
  }
  void run_all() { run_until(num_queued); }

  std::deque<Kernel> pending;
  uint64_t num_queued = 0, num_run = 0;
  FakeGraph* captured = nullptr;
  // Its own: the host's threads use different streams.
  std::mt19937_64 lag;
};

struct FakeEvent {
  FakeStream* stream = nullptr;
  uint64_t end = 0;
};

FakeStream& of(cudaStream_t stream) {
  return *reinterpret_cast<FakeStream*>(stream);
}
FakeEvent& of(cudaEvent_t event) {
  return *reinterpret_cast<FakeEvent*>(event);
}
FakeGraph& of(cudaGraphExec_t graph) {
  return *reinterpret_cast<FakeGraph*>(graph);
}

void submit_to(FakeStream& stream, Kernel kernel) {
  if (stream.captured != nullptr) {
    stream.captured->kernels.push_back(std::move(kernel));
    return;
  }
  stream.push(std::move(kernel));
  if (stream.lag() % 8 == 0) stream.run_until(stream.num_run + stream.lag() % 4);
}

cudaError_t take_memory(void** memory, size_t bytes, int rubbish) {
  *memory = std::malloc(bytes);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*memory, rubbish, bytes);
  return cudaSuccess;
}

}  // namespace

void submit(const ops::cuda::Stream& stream, std::function<void()> kernel) {
  submit_to(of(stream.handle), std::move(kernel));
}

bool is_capturing(const ops::cuda::Stream& stream) {
  return of(stream.handle).captured != nullptr;
}

}  // namespace tandem::emulated

using namespace tandem::emulated;  // NOLINT: the functions below are C

extern "C" {

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  return take_memory(memory, bytes, 0xA5);
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  return take_memory(memory, bytes, 0x5A);
}
cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

// Outside of a stream, where none has work.
cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  if (bytes > 0) std::memset(memory, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  submit_to(of(stream), [=] { std::memset(memory, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  submit_to(of(stream), [=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new FakeStream(device().rng()));
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  of(stream).run_all();
  delete &of(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  of(stream).run_all();
  return cudaSuccess;
}
// At the end of PairStep's constructor alone, when nothing has been launched.
cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new FakeEvent);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete &of(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  of(event) = {&of(stream), of(stream).num_queued};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (of(event).stream != nullptr) of(event).stream->run_until(of(event).end);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1.0F;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  of(stream).captured = new FakeGraph;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = reinterpret_cast<cudaGraph_t>(std::exchange(of(stream).captured, nullptr));
  return cudaSuccess;
}
// One object is both; it goes with the second.
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  *executable = reinterpret_cast<cudaGraphExec_t>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) {
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  FakeStream& queue = of(stream);
  ++device().counts.graph_launches;
  for (const Kernel& kernel : of(graph).kernels) queue.push(kernel);
  ++of(graph).num_waiting;
  queue.push([&launched = of(graph)] { --launched.num_waiting; });
  if (queue.lag() % 3 == 0) queue.run_until(queue.num_run + queue.lag() % 40);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  expect_equal("launches that a destroyed graph still has to run", 0, of(graph).num_waiting);
  delete &of(graph);
  return cudaSuccess;
}

// As one H200.
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9
           : attribute == cudaDevAttrMultiProcessorCount  ? 132
                                                          : 227 * 1024;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) {
  return "an error of the emulated device";
}

}  // extern "C"
