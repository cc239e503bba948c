/* What lies between the matrix products of a training step, in one pass each.

   PyTorch needs several passes, and each moves all activations, or all weights, through memory.
   `model/fused.py` and `training/optimizers/fused.py` call these functions; their tests compare them
   with the formulas.

   Activations are fp32 or bf16, computed with in fp32. Norms' weights and their gradients are fp32;
   these gradients come in PARTS, each a sum over a part of the rows, so that their total does not
   depend on the number of threads.
   C, F, D and the number of keys are multiples of LANES; D of twice as many where it is rotated.

   Shapes: N rows, C width, F hidden, B batch, T time, H heads, K key/value heads, D head_dim. */

#include "vectors.h"

INLINE void set(int is_fp32, void *to, size_t at, vector v) {
    if (is_fp32)
        store((float *)to + at, v);
    else
        store_narrowed((uint16_t *)to + at, v);
}

#define PARTS 32

/* Calls `work` for each part of the rows, with a constant for the precision. */
#define SHARE(work, arguments, rows)                                                               \
    do {                                                                                           \
        const int64_t count = rows;                                                                \
        const int threads = (arguments)->threads;                                                  \
        (void)threads;                                                                             \
        _Pragma("omp parallel for num_threads(threads) schedule(static)")                          \
        for (int part = 0; part < PARTS; part++) {                                                 \
            const int64_t from = count * part / PARTS, to = count * (part + 1) / PARTS;            \
            if ((arguments)->is_fp32)                                                              \
                work(1, arguments, from, to, part);                                                \
            else                                                                                   \
                work(0, arguments, from, to, part);                                                \
        }                                                                                          \
    } while (0)

/* --- RMSNorm -------------------------------------------------------------------------------- */

typedef struct {
    int32_t is_fp32, threads;
    int64_t rows, size;
    float eps;
    const void *x, *grad;
    const float *weight;
    float *scale;       /* (N,), 1 / root mean square: of the forward pass for the backward pass */
    void *out;          /* (N, C): y, or the gradient of x */
    float *grad_weight; /* (PARTS, C), zeros */
} Norm;

INLINE void norm_rows(int is_fp32, const Norm *n, int64_t from, int64_t to, int part) {
    (void)part;
    const int64_t C = n->size;
    for (int64_t row = from; row < to; row++) {
        vector squares = all(0);
        for (int64_t c = 0; c < C; c += LANES) {
            vector x = get(is_fp32, n->x, row * C + c);
            squares += x * x;
        }
        const float scale = n->scale[row] = 1.0f / sqrtf(total(squares) / C + n->eps);
        for (int64_t c = 0; c < C; c += LANES)
            set(is_fp32, n->out, row * C + c,
                get(is_fp32, n->x, row * C + c) * scale * load(n->weight + c));
    }
}

/* With z = x s: dz = g w, dw = sum of g z over the rows, dx = s (dz - z mean(dz z)). */
INLINE void norm_rows_backward(int is_fp32, const Norm *n, int64_t from, int64_t to, int part) {
    const int64_t C = n->size;
    float *grad_weight = n->grad_weight + part * C;
    for (int64_t row = from; row < to; row++) {
        const float scale = n->scale[row];
        vector products = all(0);
        for (int64_t c = 0; c < C; c += LANES) {
            vector z = get(is_fp32, n->x, row * C + c) * scale;
            vector gz = get(is_fp32, n->grad, row * C + c) * z;
            store(grad_weight + c, load(grad_weight + c) + gz);
            products += gz * load(n->weight + c);
        }
        const float mean = total(products) / C;
        for (int64_t c = 0; c < C; c += LANES) {
            vector z = get(is_fp32, n->x, row * C + c) * scale;
            vector dz = get(is_fp32, n->grad, row * C + c) * load(n->weight + c);
            set(is_fp32, n->out, row * C + c, scale * (dz - z * mean));
        }
    }
}

void minigpt_norm(const Norm *n) { SHARE(norm_rows, n, n->rows); }

void minigpt_norm_backward(const Norm *n) { SHARE(norm_rows_backward, n, n->rows); }

/* --- SwiGLU --------------------------------------------------------------------------------- */

typedef struct {
    int32_t is_fp32, threads;
    int64_t rows, hidden;
    const void *gate_up, *grad; /* (N, 2F), (N, F) */
    void *out;                  /* (N, F), or the gradient of gate_up */
} Gated;

INLINE void gated_rows(int is_fp32, const Gated *g, int64_t from, int64_t to, int part) {
    (void)part;
    const int64_t F = g->hidden;
    for (int64_t row = from; row < to; row++)
        for (int64_t f = 0; f < F; f += LANES) {
            vector gate = get(is_fp32, g->gate_up, row * 2 * F + f);
            vector up = get(is_fp32, g->gate_up, row * 2 * F + F + f);
            set(is_fp32, g->out, row * F + f, gate / (1.0f + exponential(-gate)) * up);
        }
}

/* With s the logistic function of the gate x: d(x s)/dx = s (1 + x (1 - s)). */
INLINE void gated_rows_backward(int is_fp32, const Gated *g, int64_t from, int64_t to,
                                int part) {
    (void)part;
    const int64_t F = g->hidden;
    for (int64_t row = from; row < to; row++)
        for (int64_t f = 0; f < F; f += LANES) {
            vector gate = get(is_fp32, g->gate_up, row * 2 * F + f);
            vector up = get(is_fp32, g->gate_up, row * 2 * F + F + f);
            vector grad = get(is_fp32, g->grad, row * F + f);
            vector s = 1.0f / (1.0f + exponential(-gate));
            set(is_fp32, g->out, row * 2 * F + f, grad * up * s * (1.0f + gate * (1.0f - s)));
            set(is_fp32, g->out, row * 2 * F + F + f, grad * gate * s);
        }
}

void minigpt_swiglu(const Gated *g) { SHARE(gated_rows, g, g->rows); }

void minigpt_swiglu_backward(const Gated *g) { SHARE(gated_rows_backward, g, g->rows); }

/* --- From a projection to heads ------------------------------------------------------------- */

typedef struct {
    int32_t is_fp32, threads;
    int64_t batch, time, n_head, n_kv_head, head_dim;
    int32_t q_time_first, kv_time_first;
    float eps;
    void *qkv;                         /* (B, T, (H + 2K) D), or the gradient of it */
    const void *x;                     /* in the backward pass, qkv itself */
    /* (B, H, T, D) and (B, K, T, D) twice, or their gradients; or with T before the heads. */
    void *q, *k, *v;
    const float *q_weight, *k_weight;  /* of QK-norm, (D,), or NULL */
    float *scale;                      /* of QK-norm, (B, T, H + K) */
    const void *cos, *sin;             /* (T, D), the sines' first half negated, or NULL */
    float *grad_q_weight, *grad_k_weight; /* (PARTS, D), zeros */
} Heads;

/* Where a head's D numbers of one token are in q, k or v. */
INLINE size_t place(const Heads *h, int time_first, int64_t b, int64_t head, int64_t heads,
                    int64_t t) {
    const int64_t at = time_first ? (b * h->time + t) * heads + head : (b * heads + head) * h->time + t;
    return at * h->head_dim;
}

INLINE void copy_values(int is_fp32, const Heads *h, int64_t b, int64_t t, size_t in_qkv, int back) {
    for (int64_t head = 0; head < h->n_kv_head; head++)
        for (int64_t d = 0; d < h->head_dim; d += LANES) {
            const size_t one = in_qkv + head * h->head_dim + d;
            const size_t other = place(h, h->kv_time_first, b, head, h->n_kv_head, t) + d;
            if (back)
                set(is_fp32, h->qkv, one, get(is_fp32, h->v, other));
            else
                set(is_fp32, h->v, other, get(is_fp32, h->qkv, one));
        }
}

/* A head of one token: normalized, then rotated, from qkv at `in` to `out` at `to`. */
INLINE void head_forward(int is_fp32, const Heads *h, size_t in, const float *weight, float *scale,
                         int64_t t, void *out, size_t to) {
    const int64_t D = h->head_dim, step = h->cos ? D / 2 : D;
    float s = 1.0f;
    if (weight) {
        vector squares = all(0);
        for (int64_t d = 0; d < D; d += LANES) {
            vector x = get(is_fp32, h->qkv, in + d);
            squares += x * x;
        }
        s = *scale = 1.0f / sqrtf(total(squares) / D + h->eps);
    }
    for (int64_t d = 0; d < step; d += LANES) {
        vector a = get(is_fp32, h->qkv, in + d);
        a = weight ? a * s * load(weight + d) : a;
        if (!h->cos) {
            set(is_fp32, out, to + d, a);
            continue;
        }
        const int64_t e = d + D / 2;
        vector b = get(is_fp32, h->qkv, in + e);
        b = weight ? b * s * load(weight + e) : b;
        set(is_fp32, out, to + d,
            a * get(is_fp32, h->cos, t * D + d) + b * get(is_fp32, h->sin, t * D + d));
        set(is_fp32, out, to + e,
            b * get(is_fp32, h->cos, t * D + e) + a * get(is_fp32, h->sin, t * D + e));
    }
}

/* The gradient of 16 numbers of a head before it was rotated. */
INLINE vector unrotated(int is_fp32, const Heads *h, const void *out, size_t to, int64_t t, int64_t d) {
    const int64_t D = h->head_dim, e = d < D / 2 ? d + D / 2 : d - D / 2;
    vector grad = get(is_fp32, out, to + d);
    if (!h->cos)
        return grad;
    return grad * get(is_fp32, h->cos, t * D + d) +
           get(is_fp32, out, to + e) * get(is_fp32, h->sin, t * D + e);
}

/* The same backwards: the gradient of `out` at `to` becomes that of qkv at `in`. */
INLINE void head_backward(int is_fp32, const Heads *h, size_t in, const float *weight,
                          const float *scale, int64_t t, const void *out, size_t to,
                          float *grad_weight) {
    const int64_t D = h->head_dim;
    float mean = 0.0f;
    if (weight) {
        vector products = all(0);
        for (int64_t d = 0; d < D; d += LANES) {
            vector gz = unrotated(is_fp32, h, out, to, t, d) * get(is_fp32, h->x, in + d) * *scale;
            store(grad_weight + d, load(grad_weight + d) + gz);
            products += gz * load(weight + d);
        }
        mean = total(products) / D;
    }
    for (int64_t d = 0; d < D; d += LANES) {
        vector dx = unrotated(is_fp32, h, out, to, t, d);
        if (weight)
            dx = *scale * (dx * load(weight + d) - get(is_fp32, h->x, in + d) * *scale * mean);
        set(is_fp32, h->qkv, in + d, dx);
    }
}

INLINE void heads_of_tokens(int is_fp32, const Heads *h, int64_t from, int64_t to, int part,
                            int back) {
    const int64_t H = h->n_head, K = h->n_kv_head, D = h->head_dim;
    for (int64_t token = from; token < to; token++) {
        const int64_t b = token / h->time, t = token % h->time;
        const size_t in = token * (H + 2 * K) * D;
        for (int64_t head = 0; head < H + K; head++) {
            const int is_q = head < H;
            const float *weight = is_q ? h->q_weight : h->k_weight;
            void *out = is_q ? h->q : h->k;
            const size_t at = is_q ? place(h, h->q_time_first, b, head, H, t)
                                   : place(h, h->kv_time_first, b, head - H, K, t);
            float *scale = h->scale ? h->scale + token * (H + K) + head : 0;
            if (back) {
                float *grads = is_q ? h->grad_q_weight : h->grad_k_weight;
                head_backward(is_fp32, h, in + head * D, weight, scale, t, out, at,
                              grads ? grads + part * D : 0);
            } else
                head_forward(is_fp32, h, in + head * D, weight, scale, t, out, at);
        }
        copy_values(is_fp32, h, b, t, in + (H + K) * D, back);
    }
}

INLINE void heads_forward(int is_fp32, const Heads *h, int64_t from, int64_t to, int part) {
    heads_of_tokens(is_fp32, h, from, to, part, 0);
}

INLINE void heads_backward(int is_fp32, const Heads *h, int64_t from, int64_t to, int part) {
    heads_of_tokens(is_fp32, h, from, to, part, 1);
}

void minigpt_heads(const Heads *h) { SHARE(heads_forward, h, h->batch * h->time); }

void minigpt_heads_backward(const Heads *h) {
    SHARE(heads_backward, h, h->batch * h->time);
}

/* --- Causal softmax ------------------------------------------------------------------------- */

typedef struct {
    int32_t is_fp32, threads;
    int64_t rows, keys;  /* of the scores, (N, keys) */
    int64_t block_rows;  /* of each head: those of the first query, then those of the next one */
    int64_t group;       /* rows of each query */
    int64_t seen;        /* keys that the first query may see; each later one sees one more */
    float scale;
    void *scores;        /* become weights in place, or their gradient becomes that of the scores */
    const void *weights; /* in the backward pass */
} Softmax;

INLINE int64_t keys_seen(const Softmax *s, int64_t row) {
    return s->seen + row % s->block_rows / s->group;
}

INLINE void fill(int is_fp32, void *to, size_t from, size_t end, float value) {
    for (size_t i = from; i < end; i++)
        if (is_fp32)
            ((float *)to)[i] = value;
        else
            ((uint16_t *)to)[i] = narrow(value);
}

/* Up to the next whole vector, -inf is a score that weighs next to nothing. */
INLINE void softmax_rows(int is_fp32, const Softmax *s, int64_t from, int64_t to, int part) {
    (void)part;
    for (int64_t row = from; row < to; row++) {
        const size_t begin = row * s->keys, end = begin + s->keys;
        const size_t seen = begin + keys_seen(s, row);
        const size_t whole = (seen + LANES - 1) / LANES * LANES;
        fill(is_fp32, s->scores, seen, whole, -INFINITY);
        vector peaks = all(-INFINITY), sums = all(0);
        for (size_t i = begin; i < whole; i += LANES) {
            vector x = get(is_fp32, s->scores, i);
            peaks = where(x > peaks, x, peaks);
        }
        const float shift = largest(peaks) * s->scale;
        for (size_t i = begin; i < whole; i += LANES)
            sums += exponential(get(is_fp32, s->scores, i) * s->scale - shift);
        const float share = 1.0f / total(sums);
        for (size_t i = begin; i < whole; i += LANES)
            set(is_fp32, s->scores, i,
                exponential(get(is_fp32, s->scores, i) * s->scale - shift) * share);
        fill(is_fp32, s->scores, seen, end, 0.0f);
    }
}

/* With weights w: dx = w (dw - sum(dw w)). */
INLINE void softmax_rows_backward(int is_fp32, const Softmax *s, int64_t from, int64_t to,
                                  int part) {
    (void)part;
    for (int64_t row = from; row < to; row++) {
        const size_t begin = row * s->keys, end = begin + s->keys;
        const size_t seen = begin + keys_seen(s, row);
        vector products = all(0);
        for (size_t i = begin; i < seen; i += LANES)
            products += get(is_fp32, s->scores, i) * get(is_fp32, s->weights, i);
        const float sum = total(products);
        for (size_t i = begin; i < seen; i += LANES)
            set(is_fp32, s->scores, i,
                get(is_fp32, s->weights, i) * (get(is_fp32, s->scores, i) - sum));
        fill(is_fp32, s->scores, seen, end, 0.0f);
    }
}

void minigpt_softmax(const Softmax *s) { SHARE(softmax_rows, s, s->rows); }

void minigpt_softmax_backward(const Softmax *s) { SHARE(softmax_rows_backward, s, s->rows); }

/* --- Muon, but for its products ------------------------------------------------------------- */

typedef struct {
    int32_t threads;
    int64_t count;
    float forgotten;  /* share of the momentum that a step replaces */
    const float *grad;
    float *momentum;
    uint16_t *update; /* bf16 */
} Nesterov;

INLINE void nesterov_of(const Nesterov *n, const float *grad, float *momentum, uint16_t *update) {
    const vector g = load(grad), old = load(momentum);
    const vector m = old + (g - old) * n->forgotten;
    store(momentum, m);
    store_narrowed(update, m + (g - m) * n->forgotten);
}

/* Moves the momentum toward the gradient, and looks a step ahead. */
void minigpt_nesterov(const Nesterov *n) {
    const Nesterov own = *n;
    const int64_t whole = own.count / LANES * LANES, rest = own.count - whole;
#pragma omp parallel for num_threads(own.threads) schedule(static)
    for (int64_t i = 0; i < whole; i += LANES)
        nesterov_of(&own, own.grad + i, own.momentum + i, own.update + i);
    if (rest) {
        float grad[LANES] = {0}, momentum[LANES] = {0};
        uint16_t update[LANES];
        memcpy(grad, own.grad + whole, rest * sizeof *grad);
        memcpy(momentum, own.momentum + whole, rest * sizeof *momentum);
        nesterov_of(&own, grad, momentum, update);
        memcpy(own.momentum + whole, momentum, rest * sizeof *momentum);
        memcpy(own.update + whole, update, rest * sizeof *update);
    }
}

typedef struct {
    int32_t threads;
    int64_t count;
    float kept, scale;
    const uint16_t *direction; /* bf16 */
    float *weight;
} Move;

INLINE void move_of(const Move *m, const uint16_t *direction, float *weight) {
    store(weight, load(weight) * m->kept - widened(direction) * m->scale);
}

/* Decays weights and moves them. */
void minigpt_move(const Move *m) {
    const Move own = *m;
    const int64_t whole = own.count / LANES * LANES, rest = own.count - whole;
#pragma omp parallel for num_threads(own.threads) schedule(static)
    for (int64_t i = 0; i < whole; i += LANES)
        move_of(&own, own.direction + i, own.weight + i);
    if (rest) {
        float weight[LANES] = {0};
        uint16_t direction[LANES] = {0};
        memcpy(weight, own.weight + whole, rest * sizeof *weight);
        memcpy(direction, own.direction + whole, rest * sizeof *direction);
        move_of(&own, direction, weight);
        memcpy(own.weight + whole, weight, rest * sizeof *weight);
    }
}

/* How many parts the gradient of a weight has. */
int32_t minigpt_parts(void) { return PARTS; }
