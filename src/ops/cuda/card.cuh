// What the card that device code is compiled for can do. The host asks the card (device.h).
#pragma once

namespace tandem::ops::cuda::card {

// TANDEM_MMA_SYNC: a build for Hopper that takes the ways of other cards, to test them there.
#if defined(TANDEM_MMA_SYNC)
inline constexpr bool kWarpgroupProducts = false;
inline constexpr bool kSmallShared = true;
#elif defined(__CUDA_ARCH__)
// Whether it has wgmma; others have mma.sync.
inline constexpr bool kWarpgroupProducts = __CUDA_ARCH__ < 1000;
// Whether a thread block has 99 KB of shared memory, not 227.
inline constexpr bool kSmallShared = __CUDA_ARCH__ >= 1200;
#else
inline constexpr bool kWarpgroupProducts = true;
inline constexpr bool kSmallShared = false;
#endif

}  // namespace tandem::ops::cuda::card

#if defined(TANDEM_MMA_SYNC) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000)
#define TANDEM_WARP_PRODUCTS
#endif
