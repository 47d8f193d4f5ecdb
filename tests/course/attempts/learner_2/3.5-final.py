    def address(self, batch_idx: Tensor, input_pos: Tensor) -> Tensor:
        """Where in the pool a token of a sequence lies.  [3.5 · ★★☆ · 10 min]

        Args:
            batch_idx: integer tensor of slots, any shape.
            input_pos: integer tensor of positions in the sequence, of a shape that broadcasts with `batch_idx`.

        Returns:
            int64 tensor of the broadcast shape: physical page × `page_size` + place in the page.  For slot 0 always an address in page 0, the
            sink, whatever the position.

        >>> table = PageTable(n_pages=9, page_size=4, max_batch_size=1)
        >>> table.page_table[1, :2] = torch.tensor([7, 2])
        >>> table.address(torch.tensor(1), torch.tensor([0, 3, 4, 5])).tolist()
        [28, 31, 8, 9]
        """
        slot, position = torch.broadcast_tensors(batch_idx.long(), input_pos.long())
        sink = slot == 0
        logical = (position // self.page_size).masked_fill(sink, 0)  # padding may stand at any position, also beyond the row
        page = self.page_table[slot, logical].long().masked_fill(sink, 0)
        return page * self.page_size + position.remainder(self.page_size)
