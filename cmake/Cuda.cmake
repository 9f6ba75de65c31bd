# The CUDA toolkit, for src/ops/cuda and src/gpu. cudart is linked statically and finds the driver at run time, so one
# program runs with and without a GPU.
set(CMAKE_CUDA_COMPILER ${TANDEM_NVCC})
set(TANDEM_CUDA_ARCHITECTURES 90a CACHE STRING
  "Cards that kernels are compiled for, separated by semicolons: 90a Hopper, 120a GeForce RTX 50, 121a GB10")
set(CMAKE_CUDA_ARCHITECTURES ${TANDEM_CUDA_ARCHITECTURES})
option(TANDEM_MMA_SYNC "Hopper takes the ways of cards without wgmma, to test them there" OFF)
if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
enable_language(CUDA)
# CMake 3.25 does not know that nvcc 13 has C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA_STANDARD 20)
string(APPEND CMAKE_CUDA_FLAGS " --expt-relaxed-constexpr -lineinfo -Xcompiler=-Wall,-Wextra")
find_package(CUDAToolkit REQUIRED)
