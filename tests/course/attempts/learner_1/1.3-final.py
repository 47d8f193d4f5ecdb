def packed_documents(document_L: Tensor) -> MaskMod:
    """Several documents lie in one row; a query reads only its own document.  [1.3 · ★☆☆ · 10 min]

    Args:
        document_L: integer tensor [L], the document that each position belongs to.

    Returns:
        A `mask_mod`, True where query and key belong to the same document.  It reads `document_L` when it is called, so
        that new contents of the tensor count without a new mask.

    >>> same = packed_documents(torch.tensor([0, 0, 1, 1]))
    >>> same(None, None, torch.tensor(2), torch.tensor([0, 1, 2, 3])).tolist()
    [False, False, True, True]
    """
    def same_document(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return document_L[q_idx] == document_L[kv_idx]

    return same_document
