ENDPOINTS: list[object] = []
