// The accumulators of wgmma as operands of asm, where they come first: how many there are is a
// product's width, and each is written out.
#pragma once

#define TANDEM_ACC4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define TANDEM_ACC8(d, i) TANDEM_ACC4(d, i), TANDEM_ACC4(d, i + 4)
#define TANDEM_ACC12(d, i) TANDEM_ACC8(d, i), TANDEM_ACC4(d, i + 8)
#define TANDEM_ACC16(d, i) TANDEM_ACC8(d, i), TANDEM_ACC8(d, i + 8)
#define TANDEM_ACC24(d, i) TANDEM_ACC16(d, i), TANDEM_ACC8(d, i + 16)
#define TANDEM_ACC32(d, i) TANDEM_ACC16(d, i), TANDEM_ACC16(d, i + 16)
#define TANDEM_ACC40(d, i) TANDEM_ACC32(d, i), TANDEM_ACC8(d, i + 32)
#define TANDEM_ACC48(d, i) TANDEM_ACC24(d, i), TANDEM_ACC24(d, i + 24)
#define TANDEM_ACC64(d, i) TANDEM_ACC32(d, i), TANDEM_ACC32(d, i + 32)
#define TANDEM_ACC80(d, i) TANDEM_ACC64(d, i), TANDEM_ACC16(d, i + 64)
#define TANDEM_ACC96(d, i) TANDEM_ACC64(d, i), TANDEM_ACC32(d, i + 64)
#define TANDEM_ACC128(d, i) TANDEM_ACC64(d, i), TANDEM_ACC64(d, i + 64)

// Their names in the text.
#define TANDEM_NAMES4 "%0, %1, %2, %3"
#define TANDEM_NAMES8 TANDEM_NAMES4 ", %4, %5, %6, %7"
#define TANDEM_NAMES12 TANDEM_NAMES8 ", %8, %9, %10, %11"
#define TANDEM_NAMES16 TANDEM_NAMES12 ", %12, %13, %14, %15"
#define TANDEM_NAMES24 TANDEM_NAMES16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define TANDEM_NAMES32 TANDEM_NAMES24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define TANDEM_NAMES40 TANDEM_NAMES32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define TANDEM_NAMES48 TANDEM_NAMES40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define TANDEM_NAMES56 TANDEM_NAMES48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define TANDEM_NAMES64 TANDEM_NAMES56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define TANDEM_NAMES72 TANDEM_NAMES64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define TANDEM_NAMES80 TANDEM_NAMES72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define TANDEM_NAMES88 TANDEM_NAMES80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define TANDEM_NAMES96 TANDEM_NAMES88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define TANDEM_NAMES104 TANDEM_NAMES96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define TANDEM_NAMES112 TANDEM_NAMES104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define TANDEM_NAMES120 TANDEM_NAMES112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define TANDEM_NAMES128 TANDEM_NAMES120 ", %120, %121, %122, %123, %124, %125, %126, %127"
