/* Vectors of 16 numbers, and what is computed with them. GCC and Clang turn them into whatever
   vectors the processor has. */

#ifndef MINIGPT_VECTORS_H
#define MINIGPT_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef float vector __attribute__((vector_size(64)));
typedef float half_vector __attribute__((vector_size(32)));
typedef float quarter_vector __attribute__((vector_size(16)));
typedef int32_t integers __attribute__((vector_size(64)));
typedef uint16_t shorts __attribute__((vector_size(32)));
typedef int8_t bytes __attribute__((vector_size(16)));

INLINE vector load(const float *from) {
    vector v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store(float *to, vector v) { memcpy(to, &v, sizeof v); }

INLINE vector all(float x) { return x - (vector){0}; }

INLINE vector where(integers mask, vector yes, vector no) {
    return (vector)((mask & (integers)yes) | (~mask & (integers)no));
}

/* GCC widens in halves where the processor does it at once. */
INLINE vector widened(const uint16_t *bf16) {
#ifdef __AVX512F__
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)bf16));
    return (vector)_mm512_slli_epi32(wide, 16);
#else
    shorts s;
    memcpy(&s, bf16, sizeof s);
    return (vector)(__builtin_convertvector(s, integers) << 16);
#endif
}

INLINE vector from_bytes(const int8_t *numbers) {
#ifdef __AVX512F__
    __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)numbers));
    return (vector)_mm512_cvtepi32_ps(wide);
#else
    bytes b;
    memcpy(&b, numbers, sizeof b);
    return __builtin_convertvector(__builtin_convertvector(b, integers), vector);
#endif
}

INLINE float widen(uint16_t bf16) {
    uint32_t bits = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE uint16_t narrow(float x) { /* to the nearest bf16, halves to even */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x)
        return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Sixteen numbers of a tensor in one of two precisions. */
INLINE vector get(int is_fp32, const void *from, size_t at) {
    return is_fp32 ? load((const float *)from + at) : widened((const uint16_t *)from + at);
}

/* Sixteen at once, as `narrow`. */
INLINE void store_narrowed(uint16_t *to, vector v) {
#ifdef __AVX512BF16__
    __m256bh narrowed = _mm512_cvtneps_pbh((__m512)v);
    memcpy(to, &narrowed, sizeof narrowed);
#else
    integers bits = (integers)v;
    bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    bits = ((v == v) & bits) | ((v != v) & 0x7fc0);
    for (int i = 0; i < LANES; i++)
        to[i] = (uint16_t)bits[i];
#endif
}

INLINE float total(vector v) {
    half_vector h[2];
    memcpy(h, &v, sizeof v);
    h[0] += h[1];
    quarter_vector q[2];
    memcpy(q, h, sizeof q);
    q[0] += q[1];
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

#ifdef __AVX512F__
/* Sums of neighbors: within each four lanes those of a and b in turn, and of whole quarters. */
INLINE vector added_lanes(vector a, vector b) {
    return (vector)(_mm512_unpacklo_ps((__m512)a, (__m512)b) +
                    _mm512_unpackhi_ps((__m512)a, (__m512)b));
}

INLINE vector added_quarters(vector a, vector b) {
    return (vector)(_mm512_shuffle_f32x4((__m512)a, (__m512)b, 0x88) +
                    _mm512_shuffle_f32x4((__m512)a, (__m512)b, 0xdd));
}
#endif

/* The totals of sixteen vectors. */
INLINE vector totals(const vector v[LANES]) {
#ifdef __AVX512F__
    vector four[4];
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4)
        four[i / 4] = added_lanes(added_lanes(v[i], v[i + 2]), added_lanes(v[i + 1], v[i + 3]));
    return added_quarters(added_quarters(four[0], four[1]), added_quarters(four[2], four[3]));
#else
    vector sums;
    for (int i = 0; i < LANES; i++)
        sums[i] = total(v[i]);
    return sums;
#endif
}

INLINE float largest(vector v) {
    float most = v[0];
    for (int i = 1; i < LANES; i++)
        most = v[i] > most ? v[i] : most;
    return most;
}

/* e^x to about an ulp or two: 2^n times a polynomial on [-ln(2)/2, ln(2)/2]. */
INLINE vector exponential(vector x) {
    const float most = 88.0f, least = -87.0f;
    x = where(x > most, all(most), x); /* NaN stays NaN */
    x = where(x < least, all(least), x);
    vector shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
    vector n = shifted - 12582912.0f;
    vector r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vector p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (vector)((integers)p + (__builtin_convertvector(n, integers) << 23));
}

INLINE float sum_of_squares(const float *x, int count, float mean) {
    vector squares = all(0);
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        vector v = load(x + i) - mean;
        squares += v * v;
    }
    float sum = total(squares);
    for (; i < count; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

INLINE float sum_of(const float *x, int count) {
    vector sums = all(0);
    int i = 0;
    for (; i + LANES <= count; i += LANES)
        sums += load(x + i);
    float sum = total(sums);
    for (; i < count; i++)
        sum += x[i];
    return sum;
}

#endif
