"""The claims of arXiv 2602.21204, in its order, and the derivations that decide them."""

from ttt_proofs.symbolic import Claim

CLAIMS = (
    Claim(
        "One inner gradient step reads out as one step of linear attention.",
        "Theorem 5.1",
        "holds",
        "For a loss that is a sum over tokens of any differentiable ℓ(f, v), any φ of one token, "
        "chunks of any length.",
        ("single_step", "mlp_gradients", "swiglu_gradients"),
    ),
    Claim(
        "Unrolled from its start, the loop is linear attention over all past tokens.",
        "Theorem 5.2",
        "holds",
        "Also for a chunk that is read before its own update.",
        ("unrolled",),
    ),
    Claim(
        "With momentum, v̂_i = g_i Σ_{j=i..t} β_i^j.",
        "Theorem 5.3",
        "holds",
        "For one rate η at all steps, as the theorem has it.",
        ("momentum", "sum_order"),
    ),
    Claim(
        "With a rate for each step, the coefficient is η_i Σ_j β_i^j (Appendix E); it is "
        "Σ_j η_j β_i^j (Appendix H).",
        "Section 5.3, Appendices E and H",
        "holds, corrected",
        "The first where the rate is inside the accumulator, the second where it is outside. They "
        "differ unless η is constant.",
        ("momentum_rate_inside", "momentum_rate_outside", "momentum_rates_agree"),
    ),
    Claim(
        "The number of inner steps is part of the operator.",
        "Sections 4 and 5.2, paradox 1",
        "holds, corrected",
        "K gradient steps give K keys and values for each token; with momentum, clip or "
        "normalisation each has a weight of its own, with Muon the operator acts on their sums. "
        "For a static kernel and the Frobenius loss K plain steps are one at the rate K η. Not "
        "covered: what training makes of it.",
        ("inner_steps",),
    ),
    Claim(
        "Gradient ascent only flips the sign of v̂, which learned maps absorb.",
        "Sections 4 and 5.2, paradox 2",
        "holds, corrected",
        "For the Frobenius loss, exactly and for any net: it is descent on -v. With squared error "
        "it is not. That learned maps absorb the sign is about training, and not decided here.",
        ("ascent_is_negated_values", "ascent_is_negated_values_squared_error"),
    ),
    Claim(
        "q feeds q̂ only; k feeds k̂ and v̂.",
        "Sections 4 and 5.2, paradox 3",
        "holds",
        "Read off the forms: q occurs in q̂ alone; k occurs in k̂ and v̂, and in q̂ only through "
        "the weights that it has updated. With the Frobenius loss and no output gate v̂ has no k.",
        ("unrolled", "momentum"),
    ),
    Claim(
        "Replacing q by k leaves two different maps, φ_{t+1}(k) and φ_t(k).",
        "Sections 4 and 5.2, paradox 4",
        "holds, corrected",
        "Where the kernel is trained and the chunk is read after its update. Read before it, as "
        "LaCT is released, both are φ_t; with a static kernel they are one map, and without an "
        "operator the weights are the Gram matrix of the keys under the mask.",
        ("query_replaced_by_key", "lact"),
    ),
    Claim(
        "LaCT is linear attention.",
        "Section 5.3, Appendix E",
        "holds, corrected",
        "In each combination of momentum, Muon, weight normalisation, trained weights and "
        "reading, with rates per token; the form is not Eq. (1).",
        ("lact",),
    ),
    Claim(
        "Muon acts on each outer product: o = φ(q) (W_0 + Σ_i M(φ_i(k_i)ᵀ m_i)).",
        "Section 5.3, Eq. (1)",
        "refuted",
        "M acts on the accumulated momentum of whole chunks, Σ_i M(Σ_{j≤i} β_j^i Σ_m k̂_jmᵀ v̂_jm). "
        "Eq. (1) holds without momentum and with one token a chunk.",
        (
            "lact_muon_on_momentum",
            "lact_muon_on_each_outer_product",
            "lact_muon_on_each_token",
        ),
    ),
    Claim(
        "A normalised state, S ← Norm(S + φᵀ m), is still read linearly.",
        "Appendix E.4",
        "holds",
        "What was stored decays by gates on the columns, which depend on the state.",
        ("lact_weight_norm",),
    ),
    Claim(
        "With weight normalisation the state is the sum of Eq. (1).",
        "Eq. (1) against Appendix E.4",
        "refuted",
        "Each column of the sum is gated at every later step.",
        ("weight_norm_is_plain_sum", "lact_weight_norm"),
    ),
    Claim(
        "ViTTT's gated linear unit: o = φ_{t+1}(q) ⊙ (q (W_1 + η kᵀ (v ⊙ φ_t(k)))).",
        "Section 5.4, Appendix F",
        "holds",
        "For any activation, and for all steps as well as for one.",
        ("vittt_glu",),
    ),
    Claim(
        "ViTTT's depthwise convolution: weights are overlaps of neighbourhoods.",
        "Section 5.4, Appendix G",
        "holds",
        "For windows and images of any size, and any padding.",
        ("vittt_depthwise_conv",),
    ),
    Claim(
        "The ViTTT layer as released computes these two forms.",
        "Section 5.4",
        "holds, corrected",
        "With a gate on each column of what is stored: the released clip g / (‖g‖ + 1), which the "
        "stated forms leave out.",
        ("vittt",),
    ),
    Claim(
        "Six simplifications lead from LaCT to linear attention, parallel from V2 on.",
        "Section 6.1, Table 2",
        "holds",
        "V1 is sequential. V2 to V5 are a scan, Muon on each chunk, and a sum; V6 is a sum, and "
        "equals textbook linear attention that starts at W_0.",
        ("ladder_v1", "ladder_v2", "ladder_v3", "ladder_v4", "ladder_v5", "ladder_v6"),
    ),
    Claim(
        "O = Φ(Q) W_0 + ((Φ(Q) Φ(K)ᵀ) ⊙ C) V, C_ti = Σ_{j=i..t} η_j Π_{s=i+1..j} α_s.",
        "Section 6.2, Appendix H",
        "holds, corrected",
        "For the Frobenius loss and without Muon, for a chunk read after its update. With Muon (V2 "
        "to V5) it is a scan, Muon on each chunk, and a sum. Read before the update, the sum ends "
        "at t - 1; read causally, the diagonal blocks are masked: three operators.",
        ("parallel_form", "mask_recurrences", "ladder_v2"),
    ),
    Claim(
        "C_ti = η_i Π_{s=i+1..t} α_s, without a sum.",
        "Appendix H, an earlier version",
        "refuted",
        "That is what the accumulator holds; the state holds the sum over j.",
        ("parallel_form_early_mask", "parallel_form"),
    ),
    Claim(
        "A static kernel and no weight normalisation give a prefix sum.",
        "Section 6.2",
        "holds, corrected",
        "For plain steps on the Frobenius loss. With momentum it is a 2×2 gate, with Muon a scan, "
        "a map and a sum. With squared error v̂ depends on the state: no sum, but a step is affine, "
        "F(S+A+B) + F(S) = F(S+A) + F(S+B).",
        (
            "squared_error_not_additive",
            "squared_error_is_affine",
            "scan_is_associative",
            "parallel_form",
            "ladder_v2",
        ),
    ),
    Claim(
        "Trained kernel parameters are in the way of a parallel form.",
        "Section 6.2, Appendix I.1",
        "holds",
        "A step is not affine in the state, so no scan of affine maps runs it. (That no other "
        "parallel algorithm exists is not shown.)",
        ("dynamic_kernel_not_affine",),
    ),
    Claim(
        "So is weight normalisation: Norm(A + B) ≠ Norm(A) + Norm(B).",
        "Section 6.2, Appendix I.2",
        "holds",
        "A step is not affine in the state, with the same reservation.",
        ("weight_norm_not_affine",),
    ),
    Claim(
        "Titans and Atlas satisfy the assumptions.",
        "Section 5",
        "not decided here",
        "Their gates and memories are not written as loops yet.",
    ),
    Claim(
        "What was measured: perplexity, PSNR, accuracy, throughput.",
        "Tables 1 and 2, Figure 1",
        "not decided here",
        "Nothing here measures trained models.",
    ),
)
