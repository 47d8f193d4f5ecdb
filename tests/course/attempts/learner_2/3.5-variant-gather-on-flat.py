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
        slot, pos = torch.broadcast_tensors(batch_idx, input_pos)
        logical = torch.where(slot > 0, torch.div(pos, self.page_size, rounding_mode="floor"), 0).long()
        page = self.page_table.reshape(-1).gather(0, (slot.long() * self.pages_per_row + logical).reshape(-1)).view(slot.shape)
        return torch.where(slot > 0, page.long() * self.page_size, 0) + pos.long() % self.page_size
