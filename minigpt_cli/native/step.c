/* One token of each text through the whole model, in one call.

   What `decoder.py` computes in two hundred operations of PyTorch, each of which costs more than
   its arithmetic for a single token. `generation/compiled.py` fills the
   structures; `tests/generation/test_decoder.py` compares every step with the plain decoder.

   Matrices are packed in panels of 16 output rows, so that one vector holds a column of a panel.
   Sums are in fp32 and in one order for any number of texts and threads: a text does not depend on
   what is written beside it, nor on the machine's load.

   Shapes: B texts, C width, H heads, K key/value heads, D head_dim, W window. */

#ifdef _OPENMP
#include <omp.h>
#endif

#include "vectors.h"

#define ROWS 8 /* texts that share a read of the weights */
#define PANELS 4

enum precision { FP32, BF16, INT8 }; /* of the weights */
enum norm_kind { RMS_NORM, LAYER_NORM };
enum activation { SWIGLU, RELU, GELU, GELU_TANH };

typedef struct {
    const void *weights;
    const float *scale; /* of each output, for INT8 */
    const float *bias;  /* or NULL */
    int32_t inputs, panels;
} Matrix;

typedef struct {
    const float *weight, *bias; /* the bias may be NULL */
    float eps;
} Norm;

typedef struct {
    Norm norm1, norm2;
    Matrix qkv, proj, expand, down;
    const float *gain; /* of QK-norm, (H+K, D), or NULL */
} Layer;

typedef struct {
    int32_t precision, norm_kind, activation;
    int32_t n_layer, width, n_head, n_kv_head, head_dim, hidden, vocab;
    float head_eps; /* of QK-norm */
    const Layer *layers;
    Norm norm;
    Matrix head;
    const float *embedding; /* (V, C) */
    const float *positions; /* (W, C), or NULL with rotary ones */
} Model;

/* Where a step works. A row of `attended` and `activated` is as `put` writes it; every thread has
   its own `normed` and `own`. */
typedef struct {
    float *x, *qkv, *expanded, *logits; /* (B, panels * LANES) each */
    float *attended, *activated;        /* (B, H D) and (B, hidden) */
    float *normed;                      /* (threads, B, C) */
    float *own;                         /* (threads, W + LANES + D + C): scores, and a row */
    void *keys, *values;                /* (L, B, K, W, D), fp32 or else bf16 */
    int32_t batch, window, threads;
} Work;

/* Writes activations in the form that `tile` multiplies, from element `at` of a row. */
INLINE void put(int precision, float *row, int at, const float *from, int count) {
    if (precision == FP32) {
        memcpy(row + at, from, count * sizeof *row);
        return;
    }
#ifdef __AVX512BF16__
    if (precision == BF16) {
        uint16_t *to = (uint16_t *)row + at;
        for (int i = 0; i < count; i++)
            to[i] = narrow(from[i]);
        return;
    }
#endif
    for (int i = 0; i < count; i++)
        row[at + i] = widen(narrow(from[i]));
}

/* --- Products ------------------------------------------------------------------------------- */

INLINE vector column(int precision, const char *panel, int k) {
    if (precision == FP32)
        return load((const float *)panel + k * LANES);
    if (precision == BF16)
        return widened((const uint16_t *)panel + k * LANES);
    return from_bytes((const int8_t *)panel + k * LANES);
}

/* Rows of x, as `put` writes them, times a matrix: written to `out`, or added to it. */
typedef struct {
    const Matrix *matrix;
    const float *x;
    float *out;
    int32_t x_stride, out_stride, adds;
} Product;

/* So many texts times so many panels; precision, rows and panels are constants after inlining. */
INLINE void tile(int precision, int rows, int panels, const Product *of, int row, int panel) {
    const Matrix *m = of->matrix;
    const size_t size = precision == FP32 ? 4 : precision == BF16 ? 2 : 1;
    const size_t panel_bytes = size * LANES * m->inputs;
    const char *w = (const char *)m->weights + panel * panel_bytes;
    const float *x = of->x + (size_t)row * of->x_stride;
    vector sums[ROWS][PANELS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++)
            sums[r][p] = all(0);
#ifdef __AVX512BF16__
    if (precision == BF16) /* two inputs at a time: their weights are adjacent */
        for (int k = 0; k < m->inputs / 2; k++)
#pragma GCC unroll 4
            for (int p = 0; p < panels; p++) {
                __m512i pair = _mm512_loadu_si512(w + p * panel_bytes + 64 * (size_t)k);
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) {
                    int32_t both;
                    memcpy(&both, x + r * of->x_stride + k, sizeof both);
                    sums[r][p] = (vector)_mm512_dpbf16_ps(
                        (__m512)sums[r][p], (__m512bh)_mm512_set1_epi32(both), (__m512bh)pair);
                }
            }
    else
#endif
        for (int k = 0; k < m->inputs; k++)
#pragma GCC unroll 4
            for (int p = 0; p < panels; p++) {
                vector v = column(precision, w + p * panel_bytes, k);
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++)
                    sums[r][p] += v * x[r * of->x_stride + k];
            }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) {
            const int at = (panel + p) * LANES;
            float *out = of->out + (size_t)(row + r) * of->out_stride + at;
            vector sum = sums[r][p];
            if (precision == INT8)
                sum *= load(m->scale + at);
            if (m->bias)
                sum += load(m->bias + at);
            store(out, of->adds ? sum + load(out) : sum);
        }
}

/* The panels from `from` to before `to`, for all texts; the sums of a tile fit into registers. */
INLINE void multiply_in(int precision, const Product *of, int batch, int from, int to) {
    for (int panel = from, panels; panel < to; panel += panels) {
        panels = to - panel >= PANELS ? PANELS : 1;
        for (int row = 0, rows; row < batch; row += rows) {
            rows = batch - row >= ROWS ? ROWS : 1;
            if (rows == ROWS && panels == PANELS) {
                tile(precision, ROWS, 2, of, row, panel);
                tile(precision, ROWS, 2, of, row, panel + 2);
            } else if (rows == ROWS)
                tile(precision, ROWS, 1, of, row, panel);
            else if (panels == PANELS)
                tile(precision, 1, PANELS, of, row, panel);
            else
                tile(precision, 1, 1, of, row, panel);
        }
    }
}

static void multiply(int precision, Product of, int batch, int from, int to) {
    switch (precision) {
    case FP32: multiply_in(FP32, &of, batch, from, to); break;
    case BF16: multiply_in(BF16, &of, batch, from, to); break;
    case INT8: multiply_in(INT8, &of, batch, from, to); break;
    }
}

/* --- Between the products ------------------------------------------------------------------- */

/* All texts' x, normalized, to this thread's `normed`; quicker than waiting for shared work. */
static void normalize(const Model *m, const Norm *norm, const Work *w, int x_stride, float *normed,
                      float *row) {
    const int C = m->width;
    for (int b = 0; b < w->batch; b++) {
        const float *x = w->x + (size_t)b * x_stride;
        float mean = m->norm_kind == LAYER_NORM ? sum_of(x, C) / C : 0.0f;
        float scale = 1.0f / sqrtf(sum_of_squares(x, C, mean) / C + norm->eps);
        for (int c = 0; c < C; c++)
            row[c] = (x[c] - mean) * scale * norm->weight[c] + (norm->bias ? norm->bias[c] : 0.0f);
        put(m->precision, normed + (size_t)b * C, 0, row, C);
    }
}

INLINE vector activated(int activation, const float *gate, const float *up) {
    vector x = load(gate);
    if (activation == SWIGLU)
        return x / (1.0f + exponential(-x)) * load(up);
    if (activation == RELU)
        return where(x < 0.0f, all(0), x); /* NaN stays NaN */
    for (int i = 0; i < LANES; i++)
        x[i] = activation == GELU
                   ? 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f))
                   : 0.5f * x[i] * (1.0f + tanhf(0.79788456f * (x[i] + 0.044715f * x[i] * x[i] * x[i])));
    return x;
}

/* The feed-forward layer's first half, for some panels of its hidden units. */
static void expand(const Model *m, const Layer *layer, const Work *w, const float *normed, int from,
                   int to) {
    const int gated = m->activation == SWIGLU, F = m->hidden, stride = layer->expand.panels * LANES;
    const int up = gated ? layer->expand.panels / 2 : 0; /* the first panel of `up` */
    Product of = {&layer->expand, normed, w->expanded, m->width, stride, 0};
    multiply(m->precision, of, w->batch, from, to);
    if (gated)
        multiply(m->precision, of, w->batch, up + from, up + to);
    for (int b = 0; b < w->batch; b++)
        for (int i = from * LANES; i < to * LANES && i < F; i += LANES) {
            const float *gate = w->expanded + (size_t)b * stride + i;
            float out[LANES];
            store(out, activated(m->activation, gate, gate + up * LANES));
            put(m->precision, w->activated + (size_t)b * F, i, out, F - i < LANES ? F - i : LANES);
        }
}

/* --- Attention ------------------------------------------------------------------------------ */

/* QK-norm and rotation of one head, in place. */
static void prepare(const Model *m, float *head, const float *gain, const float *cos,
                    const float *sin) {
    const int D = m->head_dim;
    if (gain) {
        float scale = 1.0f / sqrtf(sum_of_squares(head, D, 0.0f) / D + m->head_eps);
        for (int d = 0; d < D; d++)
            head[d] *= scale * gain[d];
    }
    for (int d = 0; cos && d < D / 2; d++) { /* the sines' first half is negated */
        float a = head[d], b = head[d + D / 2];
        head[d] = a * cos[d] + b * sin[d];
        head[d + D / 2] = b * cos[d + D / 2] + a * sin[d + D / 2];
    }
}

INLINE float single(int is_fp32, const void *rows, size_t at) {
    return is_fp32 ? ((const float *)rows)[at] : widen(((const uint16_t *)rows)[at]);
}

/* Keys and values of a head of one text, (W, D) each. */
typedef struct {
    const char *keys, *values;
    const char *next; /* the keys that this thread reads after these */
    int filled;
} Past;

/* Fetches row t of keys or values ahead: products would wait at the beginning of every head. */
INLINE void prefetch(int is_fp32, int D, const char *rows, int t) {
    const size_t bytes = (size_t)D * (is_fp32 ? 4 : 2);
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch(rows + t * bytes + at);
}

/* The dot products of a query with `count` keys from t on, at most LANES. */
INLINE vector dot_products(int is_fp32, int D, const Past *past, const float *q, int t,
                           int count) {
    const int whole = D / LANES * LANES;
    vector sums[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) {
        sums[i] = all(0);
        if (i >= count)
            continue;
        prefetch(is_fp32, D, past->values, t + i);
        for (int d = 0; d < whole; d += LANES)
            sums[i] += load(q + d) * get(is_fp32, past->keys, (size_t)(t + i) * D + d);
        float rest = 0.0f;
        for (int d = whole; d < D; d++)
            rest += q[d] * single(is_fp32, past->keys, (size_t)(t + i) * D + d);
        sums[i] += (vector){rest};
    }
    return totals(sums);
}

/* So many vectors of the mean of the values from column d on, weighted by `scores`. */
INLINE void weighted_mean(int is_fp32, int D, const Past *past, int vectors, const float *scores,
                          float share, int d, float *out) {
    vector sums[PANELS];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++)
        sums[i] = all(0);
    for (int t = 0; t < past->filled; t++) {
        if (d == 0)
            prefetch(is_fp32, D, past->next, t);
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++)
            sums[i] += scores[t] * get(is_fp32, past->values, (size_t)t * D + d + i * LANES);
    }
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++)
        store(out + d + i * LANES, sums[i] * share);
}

/* One query against keys and values; `scores` takes LANES more than W. */
INLINE void attend(int is_fp32, int D, const Past *past, const float *q, float *scores, float *out) {
    const int filled = past->filled;
    const float scale = 1.0f / sqrtf(D);
    int t = 0, d = 0;
    for (; t + LANES <= filled; t += LANES)
        store(scores + t, dot_products(is_fp32, D, past, q, t, LANES) * scale);
    store(scores + t, dot_products(is_fp32, D, past, q, t, filled - t) * scale);
    float most = scores[0];
    for (t = 1; t < filled; t++)
        most = scores[t] > most ? scores[t] : most;
    for (t = 0; t < filled; t += LANES) /* what is beyond the last one is not read */
        store(scores + t, exponential(load(scores + t) - most));
    const float share = 1.0f / sum_of(scores, filled);
    for (; d + PANELS * LANES <= D; d += PANELS * LANES)
        weighted_mean(is_fp32, D, past, PANELS, scores, share, d, out);
    for (; d + LANES <= D; d += LANES)
        weighted_mean(is_fp32, D, past, 1, scores, share, d, out);
    for (; d < D; d++) {
        float sum = 0.0f;
        for (t = 0; t < filled; t++)
            sum += scores[t] * single(is_fp32, past->values, (size_t)t * D + d);
        out[d] = sum * share;
    }
}

static void attend_to(int is_fp32, int D, const Past *past, const float *q, float *scores,
                      float *out) {
    if (is_fp32)
        attend(1, D, past, q, scores, out);
    else if (D == 64) /* quicker as a constant */
        attend(0, 64, past, q, scores, out);
    else if (D == 32)
        attend(0, 32, past, q, scores, out);
    else
        attend(0, D, past, q, scores, out);
}

/* All query heads that share a key head of one text. */
static void attend_group(const Model *m, const Layer *layer, int number, const Work *w, int b,
                         int kv, const float *cos, const float *sin, int slot, int filled,
                         float *own) {
    const int H = m->n_head, K = m->n_kv_head, D = m->head_dim, group = H / K;
    const int is_fp32 = m->precision == FP32;
    float *qkv = w->qkv + (size_t)b * layer->qkv.panels * LANES;
    float *k = qkv + (H + kv) * D, *v = qkv + (H + K + kv) * D;
    float *scores = own, *mixed = own + w->window + LANES;
    const size_t head = (((size_t)number * w->batch + b) * K + kv) * w->window * D;
    prepare(m, k, layer->gain ? layer->gain + (H + kv) * D : 0, cos, sin);
    for (int d = 0; d < D; d++) {
        const size_t at = head + (size_t)slot * D + d;
        if (is_fp32) {
            ((float *)w->keys)[at] = k[d];
            ((float *)w->values)[at] = v[d];
        } else {
            ((uint16_t *)w->keys)[at] = narrow(k[d]);
            ((uint16_t *)w->values)[at] = narrow(v[d]);
        }
    }
    const size_t bytes = is_fp32 ? 4 : 2;
    const char *keys = (const char *)w->keys + head * bytes;
    const Past past = {keys, (const char *)w->values + head * bytes,
                       keys + (size_t)w->window * D * bytes, filled};
    for (int h = kv * group; h < (kv + 1) * group; h++) {
        float *q = qkv + h * D;
        prepare(m, q, layer->gain ? layer->gain + h * D : 0, cos, sin);
        attend_to(is_fp32, D, &past, q, scores, mixed);
        put(m->precision, w->attended + (size_t)b * H * D, h * D, mixed, D);
    }
}

/* --- The step ------------------------------------------------------------------------------- */

/* This thread's part of `count` things. */
#define BEGIN(count) ((int)((int64_t)(count) * me / threads))
#define END(count) ((int)((int64_t)(count) * (me + 1) / threads))

static void work(const Model *m, const Work *w, const int64_t *tokens, int64_t position,
                 const float *cos, const float *sin, int me, int threads) {
    const int B = w->batch, C = m->width, K = m->n_kv_head, HD = m->n_head * m->head_dim;
    const int slot = (int)(position % w->window);
    const int filled = position + 1 < w->window ? (int)position + 1 : w->window;
    const int x_stride = (C + LANES - 1) / LANES * LANES;
    float *normed = w->normed + (size_t)me * B * C;
    float *own = w->own + me * ((size_t)w->window + LANES + m->head_dim + C);
    float *row = own + w->window + LANES + m->head_dim;
    for (int b = BEGIN(B); b < END(B); b++)
        for (int c = 0; c < C; c++)
            w->x[(size_t)b * x_stride + c] = m->embedding[tokens[b] * C + c] +
                                             (m->positions ? m->positions[position * C + c] : 0.0f);
#pragma omp barrier
    for (int l = 0; l < m->n_layer; l++) {
        const Layer *layer = m->layers + l;
        normalize(m, &layer->norm1, w, x_stride, normed, row);
        Product qkv = {&layer->qkv, normed, w->qkv, C, layer->qkv.panels * LANES, 0};
        multiply(m->precision, qkv, B, BEGIN(layer->qkv.panels), END(layer->qkv.panels));
#pragma omp barrier
        for (int i = BEGIN(B * K); i < END(B * K); i++)
            attend_group(m, layer, l, w, i / K, i % K, cos, sin, slot, filled, own);
#pragma omp barrier
        Product proj = {&layer->proj, w->attended, w->x, HD, x_stride, 1};
        multiply(m->precision, proj, B, BEGIN(layer->proj.panels), END(layer->proj.panels));
#pragma omp barrier
        normalize(m, &layer->norm2, w, x_stride, normed, row);
        const int panels = layer->expand.panels / (m->activation == SWIGLU ? 2 : 1);
        expand(m, layer, w, normed, BEGIN(panels), END(panels));
#pragma omp barrier
        Product down = {&layer->down, w->activated, w->x, m->hidden, x_stride, 1};
        multiply(m->precision, down, B, BEGIN(layer->down.panels), END(layer->down.panels));
#pragma omp barrier
    }
    normalize(m, &m->norm, w, x_stride, normed, row);
    Product head = {&m->head, normed, w->logits, C, m->head.panels * LANES, 0};
    multiply(m->precision, head, B, BEGIN(m->head.panels), END(m->head.panels));
}

/* Reads one token of each text at a position; cosines and sines are (D,), or NULL. Returns 0, or 1
   and does nothing if a token is not in the vocabulary. */
int32_t minigpt_step(const Model *m, const Work *w, const int64_t *tokens, int64_t position,
                     const float *cos, const float *sin) {
    for (int b = 0; b < w->batch; b++)
        if (tokens[b] < 0 || tokens[b] >= m->vocab)
            return 1;
#ifdef _OPENMP
#pragma omp parallel num_threads(w->threads)
    work(m, w, tokens, position, cos, sin, omp_get_thread_num(), omp_get_num_threads());
#else
    work(m, w, tokens, position, cos, sin, 0, 1);
#endif
    return 0;
}

/* How many inputs have their weights side by side in a panel of bf16. */
int32_t minigpt_adjacent_inputs(void) {
#ifdef __AVX512BF16__
    return 2;
#else
    return 1;
#endif
}
